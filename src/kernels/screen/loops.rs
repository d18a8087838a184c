//! From a screen to its loops.

use super::{
    buffers::Buffers,
    in_place,
    instructions::{Avx2, Instructions, Vnni},
    probe::Probe,
    range::{ROWS, Range},
    side_by_side,
};
use crate::{
    kernels::{
        kernel::Screen,
        paths::Paths,
        products::codes::{Affine4, Affine8, Codes},
    },
    quant::{Format, MatrixRef},
};

impl Screen {
    /// Whether it has loops for matrices of this format: for integers of 4 bits, and with `vpdpbusd` of 8 bits. All logits of
    /// others are computed.
    pub(super) fn takes(self, format: Format) -> bool {
        format.has_biases() && (format.width().bits() == 4 || self == Self::Vnni && format.width().bits() == 8)
    }

    /// Between what the logits of `rows`, at most [`ROWS`], lie for each of the probes of their matrix, and the paths that were
    /// taken; `next` are the rows that follow. One probe's long rows are read as several streams where `streams`.
    pub(super) fn ranges(
        self,
        rows: &MatrixRef<'_>,
        next: &MatrixRef<'_>,
        probes: &[Probe],
        buffers: &mut Buffers,
        streams: bool,
        to: &mut [Range],
    ) -> Paths {
        assert!(rows.layout().rows() <= ROWS && probes.iter().all(|probe| probe.fits(rows)), "probes of this matrix");
        // SAFETY: a screen is there only where its features were detected, and by the assert there are at most sixteen rows and the
        // probes are for their matrix.
        unsafe {
            match (self, rows.layout().bits()) {
                (Self::Maddubs, _) => avx2(rows, next, probes, buffers, streams, to),
                (Self::Vnni, 4) => vnni::<Affine4>(rows, next, probes, buffers, streams, to),
                (Self::Vnni, 8) => vnni::<Affine8>(rows, next, probes, buffers, streams, to),
                (Self::Vnni, bits) => unreachable!("codes of {bits} bits are not screened"),
            }
        }
    }
}

/// # Safety
/// As [`ranges`], with these features detected.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2(
    rows: &MatrixRef<'_>,
    next: &MatrixRef<'_>,
    probes: &[Probe],
    buffers: &mut Buffers,
    streams: bool,
    to: &mut [Range],
) -> Paths {
    // SAFETY: as for this function, and these are the features of its instructions.
    unsafe { ranges::<Affine4, Avx2>(rows, next, probes, buffers, streams, to) }
}

/// # Safety
/// As [`ranges`], with these features detected.
#[target_feature(enable = "avx512f,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn vnni<C: Codes>(
    rows: &MatrixRef<'_>,
    next: &MatrixRef<'_>,
    probes: &[Probe],
    buffers: &mut Buffers,
    streams: bool,
    to: &mut [Range],
) -> Paths
where
    Vnni: Instructions<C>,
{
    // SAFETY: as for this function, and these are the features of its instructions.
    unsafe { ranges::<C, Vnni>(rows, next, probes, buffers, streams, to) }
}

/// [`Screen::ranges`].
///
/// # Safety
/// The features of `I` were detected; there are at most [`ROWS`] rows, and the probes are for their matrix.
#[inline(always)]
unsafe fn ranges<C: Codes, I: Instructions<C>>(
    rows: &MatrixRef<'_>,
    next: &MatrixRef<'_>,
    probes: &[Probe],
    buffers: &mut Buffers,
    streams: bool,
    to: &mut [Range],
) -> Paths {
    let count = rows.layout().rows();
    // SAFETY: as for this function.
    unsafe {
        if let ([probe], [to]) = (probes, &mut *to) {
            let (evaluated, paths) = in_place::evaluate::<C, I>(rows, probe, buffers, streams);
            *to = Range::new(count, &evaluated, probe.absolute);
            return paths;
        }
        side_by_side::arrange(rows, buffers);
        side_by_side::evaluate::<C, I>(count, buffers, probes, next, to);
    }
    Paths::SCREEN_OF_SEVERAL
}
