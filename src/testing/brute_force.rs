//! Certificates against trying everything: an oracle for a property, a fuzz target and regressions.
//!
//! A [`SmallHead`] has so few codes that reach its hidden state that all sets of flips can be tried. It may be in any
//! format; of the group sizes it has the smallest. Its numbers are small multiples of powers of two, so that every logit is exact in `f32`, `f64` and any order of summation, equal
//! logits are common, and nothing can be explained away by rounding. [`SmallHead::from_bytes`] makes one of any bytes,
//! and [`SmallHead::check`] compares what is certified with what trying finds. It shares no code with the certificates
//! but the head's layout.
//!
//! ```
//! use lm_headroom::testing::brute_force::SmallHead;
//!
//! let checked = SmallHead::from_bytes(b"any bytes").check().expect("certificates hold");
//! assert!(checked.tried > 0);
//! ```

use crate::{
    certificate::{
        Flip, LeastFlips, Position, Rows, Within, census, least_flips, least_flips_within, scale_census, toward,
    },
    edit::Edit,
    kernels::{Activations, Kernel, Pass, Product, Rounding, multiply, scalar},
    quant::{Codes, FloatType, Format, Layout, MatrixBuf, MatrixRef, Tensor, WeightsRef},
    team::Team,
    testing::heads::{encode, small_float},
};

/// Sets of flips that are tried for each claim, at most.
const TRIES: u64 = 120_000;
/// Columns, in two groups or more.
const COLS: usize = 64;
/// Formats, those more often in which more can happen.
const FORMATS: [&str; 16] = [
    "affine-4-g32",
    "affine-8-g32",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "affine-2-g32",
    "affine-3-g32",
    "affine-5-g32",
    "affine-6-g32",
    "mxfp4",
    "mxfp8",
    "nvfp4",
    "affine-3-g32",
    "mxfp4",
    "mxfp8",
    "affine-4-g32",
];

/// A head and a hidden state that is zero but for a few columns.
#[derive(Clone, Debug)]
pub struct SmallHead {
    /// How codes are stored.
    pub format: Format,
    /// Type of scales and biases.
    pub scale_type: FloatType,
    /// `[rows][64]`.
    pub codes: Vec<Vec<u32>>,
    /// `[rows][groups]`.
    pub scales: Vec<Vec<f32>>,
    /// `[rows][groups]`; no rows in a format without biases.
    pub biases: Vec<Vec<f32>>,
    /// What the head adds to each row's product, `[rows]`; empty in a head without a bias.
    pub constants: Vec<f32>,
    /// Columns whose flips are tried, and the hidden state there, which is 0 in all others. It may be 0 in one of these, too,
    /// where a code that is NaN counts all the same.
    pub hidden: Vec<(usize, f32)>,
}

/// What was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The least flips that were certified and found; `None` where no flips change the token.
    pub least: Option<usize>,
    /// The same among flips that leave every code a number.
    pub least_finite: Option<usize>,
    /// Whether all sets of fewer flips than these were tried, and not only those of the first sizes.
    pub exhausted: bool,
    /// Sets of flips that were tried, for all claims.
    pub tried: u64,
    /// Critical single flips.
    pub critical: usize,
    /// Whether another token would be chosen without the bias of the head.
    pub decided_by_bias: bool,
}

/// What trying found.
enum Found {
    /// So many flips do it, and no fewer.
    Least(usize),
    /// No set of so many flips, or fewer, does it.
    NotUpTo(usize),
}

/// What is asked of logits; of none where one is NaN.
type Goal<'a> = &'a dyn Fn(Option<&[f64]>) -> bool;

impl SmallHead {
    /// A head of any bytes; those that are missing count as zero.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut at = 0;
        let mut next = || {
            let byte = bytes.get(at).copied().unwrap_or(0);
            at += 1;
            usize::from(byte)
        };
        let format: Format = FORMATS[next() % FORMATS.len()].parse().expect("a format");
        let first = next();
        let bits = format.width().bits();
        let mask = format.width().mask();
        let types = format.scale_types();
        let scale_type = types[(first & 3) % types.len()];
        let rows = 2 + (first >> 2) % 3;
        let floats = format.codes().are_floats();
        let used = match (bits, floats) {
            (2 | 3, _) | (4, true) => 2 + (first >> 5) % 4,
            (4, false) => 2 + (first >> 5) % 3,
            (_, true) => 1 + (first >> 5) % 4,
            (_, false) => 1 + (first >> 5) % 2,
        };
        let mut hidden: Vec<(usize, f32)> = Vec::new();
        for i in 0..used {
            let (column, value) = (next() % COLS, next());
            let sign = if value & 1 == 0 { 1.0 } else { -1.0 };
            let free = (0..COLS).map(|i| (column + i) % COLS).find(|c| hidden.iter().all(|(used, _)| used != c));
            let unmet = format == Format::MXFP8 && i == 1 && value >> 6 == 3;
            let size = if unmet { 0.0 } else { (1 + value / 2 % 8) as f32 / 2.0 };
            hidden.push((free.expect("few are used"), sign * size));
        }
        let groups = COLS / format.group_size();
        let (mut codes, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        // Wide codes reach further.
        let step = (1_u32 << bits) as f32;
        for _ in 0..rows {
            let mut row = vec![0; COLS];
            for &(column, _) in &hidden {
                let code = next() as u32 & mask;
                row[column] = if value(format.codes(), code).is_nan() { code ^ 1 } else { code };
            }
            // The other columns do not matter, which is a claim of its own, unless one of their codes is nearly NaN.
            let of_others = |c: usize| if format == Format::MXFP8 { 0 } else { c as u32 & mask };
            (0..COLS).filter(|c| hidden.iter().all(|(used, _)| used != c)).for_each(|c| row[c] = of_others(c));
            codes.push(row);
            let scale = |byte: usize| match format {
                // So far apart that all sums are still exact in f32.
                Format::MXFP8 => 2_f32.powi(byte as i32 % 3 - 1),
                Format::MXFP4 => 2_f32.powi(byte as i32 % 7 - 3),
                Format::NVFP4 => FloatType::E4m3.get(&[(0x28 + (byte & 0x1f) as u8) | (byte & 0x80) as u8], 0),
                _ => (byte as f32 - 96.0).trunc() / 16.0 / step * 2.0,
            };
            scales.push((0..groups).map(|_| scale(next())).collect());
            if format.has_biases() {
                biases.push((0..groups).map(|_| (next() as f32 - 128.0) / 16.0).collect());
            }
        }
        let mut head = Self { format, scale_type, codes, scales, biases, constants: Vec::new(), hidden };
        // Sums of more columns are exact in f32 only where scales are equal.
        if format == Format::MXFP8 && used > 2 {
            head.even();
        }
        // Left to chance, a token that takes several flips is rare.
        let aim = next();
        match (aim & 3, format.has_biases()) {
            (0, _) => {}
            (_, true) => head.aim([1, 2, 3, 4, 5, 6, 6, 7][aim / 4 % 8]),
            (_, false) => head.lead(&mut next),
        }
        // Of what else there is, some is a bias of the head, with which a row may lead that has another place by its product.
        let drawn = next();
        if drawn & 3 == 3 {
            head.constants = (0..rows).map(|_| (next() as f32 - 128.0) / 16.0).collect();
            if drawn & 4 != 0 {
                head.aim([1, 2, 3, 4, 5, 6, 6, 7][drawn / 8 % 8]);
            }
        }
        head
    }

    /// Moves row 0 ahead of row 1 by a little less than their `flips` largest gains, as far as a bias can: the head's where it
    /// has one, else that of a group.
    fn aim(&mut self, flips: usize) {
        let logits = self.logits(&self.codes, &wide(&self.scales), &wide(&self.biases));
        let mut gains: Vec<f64> = Vec::new();
        for Flip { row, column, bit } in self.flips().into_iter().filter(|flip| flip.row < 2) {
            let (row, column) = (row as usize, column as usize);
            let up = self.scale(row, column) * self.hidden_at(column) * f64::from(1_u32 << bit);
            let set = self.codes[row][column] >> bit & 1 == 1;
            let delta = if set { -up } else { up };
            gains.push(if row == 0 { -delta } else { delta });
        }
        gains.retain(|gain| *gain > 0.0);
        gains.sort_by(|a, b| b.total_cmp(a));
        let Some(last) = gains.get(flips - 1) else { return };
        let ahead = gains[..flips].iter().sum::<f64>() - last / 2.0;
        let behind = ahead - logits[0] + logits[1];
        if let Some(constant) = self.constants.first_mut() {
            *constant = (((f64::from(*constant) + behind) * 16.0).round() / 16.0).clamp(-63.0, 63.0) as f32;
            return;
        }
        let size = self.format.group_size();
        let group = self.hidden[0].0 / size;
        let sum: f64 = (group * size..(group + 1) * size).map(|column| self.hidden_at(column)).sum();
        if sum != 0.0 {
            let bias = f64::from(self.biases[0][group]) + behind / sum;
            self.biases[0][group] = ((bias * 16.0).round() / 16.0).clamp(-15.0, 15.0) as f32;
        }
    }

    /// Makes all columns weigh the same, so that none of them decides alone.
    fn even(&mut self) {
        let scale = self.scales[0][0].abs();
        self.scales.iter_mut().flatten().for_each(|other| *other = scale);
        let size = self.hidden[0].1.abs();
        self.hidden.iter_mut().filter(|(_, h)| *h != 0.0).for_each(|(_, h)| *h = size.copysign(*h));
    }

    /// Gives row 0 codes with which it leads, and the others codes with which they do not; codes of 8 bits that take some
    /// flips to become NaN.
    fn lead(&mut self, next: &mut impl FnMut() -> usize) {
        let codes = self.format.codes();
        let all = 0..=self.format.width().mask();
        let numbers: Vec<u32> = all.clone().filter(|&code| !value(codes, code).is_nan()).collect();
        let drawn = next();
        let (level, far) = ([8, 8, 8, 7, 6, 5, 4, 3][drawn % 8], 1 + drawn / 8 % 5);
        if drawn & 0x80 == 0 {
            self.even();
        }
        for row in 0..self.codes.len() {
            for column in self.hidden.iter().map(|(column, _)| *column).collect::<Vec<_>>() {
                let draw = next();
                let up = self.scale(row, column) * self.hidden_at(column) * if row == 0 { 1.0 } else { -1.0 };
                let nan = all.clone().filter(|&code| value(codes, code).is_nan());
                let nan: Vec<u32> = nan.collect();
                let away = |code: u32| nan.iter().map(|nan| (nan ^ code).count_ones()).min().unwrap_or(8);
                let good = numbers.iter().filter(|&&code| away(code) as usize >= far);
                let best = good.max_by(|&&a, &&b| (value(codes, a) * up).total_cmp(&(value(codes, b) * up)));
                if draw % 8 < level {
                    self.codes[row][column] = *best.expect("0 is far from NaN");
                }
            }
        }
    }

    fn layout(&self) -> Layout {
        Layout::new(self.codes.len(), COLS, self.format, self.scale_type).expect("whole groups")
    }

    fn matrix(&self) -> MatrixBuf {
        let floats =
            |values: &[Vec<f32>]| values.iter().flatten().flat_map(|&value| encode(self.scale_type, value)).collect();
        let words = self.codes.iter().flat_map(|row| self.format.width().pack(row)).collect();
        let biases = self.format.has_biases().then(|| floats(&self.biases));
        MatrixBuf::new(self.layout(), words, floats(&self.scales), biases).expect("whole rows")
    }

    /// The flips that can matter.
    fn flips(&self) -> Vec<Flip> {
        let mut flips = Vec::new();
        for row in 0..self.codes.len() {
            for &(column, _) in &self.hidden {
                let flip = |bit| Flip { row: row as u32, column: column as u32, bit: bit as u8 };
                flips.extend((0..self.format.width().bits()).map(flip));
            }
        }
        flips
    }

    fn scale(&self, row: usize, column: usize) -> f64 {
        f64::from(self.scales[row][column / self.format.group_size()])
    }

    fn hidden_at(&self, column: usize) -> f64 {
        self.hidden.iter().find(|(used, _)| *used == column).map_or(0.0, |&(_, h)| f64::from(h))
    }

    /// What the head adds to a row's product.
    fn constant(&self, row: usize) -> f32 {
        self.constants.get(row).copied().unwrap_or(0.0)
    }

    /// Logits under other scales and biases, of codes that are numbers; all exact.
    fn logits(&self, codes: &[Vec<u32>], scales: &[Vec<f64>], biases: &[Vec<f64>]) -> Vec<f64> {
        let size = self.format.group_size();
        let logit = |(row, codes): (usize, &Vec<u32>)| {
            let product: f64 = (0..COLS / size)
                .map(|group| {
                    let columns = group * size..(group + 1) * size;
                    let q: f64 =
                        columns.clone().map(|c| value(self.format.codes(), codes[c]) * self.hidden_at(c)).sum();
                    let h: f64 = columns.map(|c| self.hidden_at(c)).sum();
                    scales[row][group] * q + biases.get(row).map_or(0.0, |biases| biases[group] * h)
                })
                .sum();
            product + f64::from(self.constant(row))
        };
        codes.iter().enumerate().map(logit).collect()
    }

    /// Tries all sets of flips out of `among`, the small ones first, until `goal` holds of the logits.
    fn least(&self, among: &[Flip], goal: Goal<'_>, tried: &mut u64) -> Found {
        let logits = self.logits(&self.codes, &wide(&self.scales), &wide(&self.biases));
        let mut sets = Sets { head: self, among, goal, codes: self.codes.clone(), logits, nan: 0, tried: 0 };
        let mut size = 0;
        let found = loop {
            if sets.any(0, size) {
                break Found::Least(size);
            }
            // The next size is begun only if it can be finished.
            let next = (0..=size).fold(1_u64, |n, i| n * (among.len().saturating_sub(i)) as u64 / (i as u64 + 1));
            if size == among.len() || sets.tried + next > TRIES {
                break Found::NotUpTo(size);
            }
            size += 1;
        };
        *tried += sets.tried;
        found
    }

    /// Fewest flips that make any code NaN, and the single flips that do, by trying all that can become of each code.
    fn to_nan(&self) -> Option<(usize, Vec<Flip>)> {
        let (codes, mask) = (self.format.codes(), self.format.width().mask());
        let (mut least, mut single) = (None, Vec::new());
        for (row, column) in (0..self.codes.len()).flat_map(|row| (0..COLS).map(move |column| (row, column))) {
            for flipped in (1..=mask).filter(|flipped| value(codes, self.codes[row][column] ^ flipped).is_nan()) {
                let flips = flipped.count_ones() as usize;
                least = Some(least.map_or(flips, |least: usize| least.min(flips)));
                if flips == 1 {
                    single.push(Flip { row: row as u32, column: column as u32, bit: flipped.ilog2() as u8 });
                }
            }
        }
        single.sort_unstable();
        least.map(|least| (least, single))
    }

    /// Compares every certificate with what trying finds.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self) -> Result<Checked, String> {
        let owned = self.matrix();
        let (matrix, layout) = (owned.view(), *owned.layout());
        let mut hidden = vec![0.0; COLS];
        self.hidden.iter().for_each(|&(column, h)| hidden[column] = h);
        let team = Team::new(1);
        let executed = self.project(&matrix, &hidden, &team);
        let bias = (!self.constants.is_empty()).then_some(self.constants.as_slice());
        let rows = Rows::new(matrix, Rounding::KERNELS, &team).with_bias(bias);
        let position = Position::new(&rows, &hidden, &executed).map_err(|error| error.to_string())?;
        let token = position.token();
        let nan = rows.nan().map(|nan| nan.flips);
        let fewer = |least: Option<&LeastFlips>| least.map(|least| least.flips).into_iter().chain(nan).min();
        let differ = |what: &str, certified: &dyn std::fmt::Debug, tried: &dyn std::fmt::Debug| {
            format!("{what}: certified {certified:?}, tried {tried:?}; {self:?}")
        };

        let without = Self { constants: Vec::new(), ..self.clone() };
        let of_products = without.logits(&self.codes, &wide(&self.scales), &wide(&self.biases));
        let mut checked = Checked { decided_by_bias: top(&of_products) != token, ..Checked::default() };
        let finite = move |logits: Option<&[f64]>| logits.is_some_and(|logits| top(logits) != token);
        let loses = move |logits: Option<&[f64]>| logits.is_none_or(|logits| top(logits) != token);
        let compare = |what: &str, certified: Option<usize>, found: &Found| match (certified, found) {
            (Some(least), Found::Least(found)) if least == *found => Ok(true),
            (Some(least), Found::NotUpTo(size)) if least > *size => Ok(least == size + 1),
            (None, Found::NotUpTo(_)) => Ok(true),
            (_, Found::Least(found)) => Err(differ(what, &certified, found)),
            (_, Found::NotUpTo(size)) => Err(differ(what, &certified, &format!("none of up to {size}"))),
        };
        let all = self.flips();

        // Least flips, anywhere.
        let least = least_flips(&position, &[]);
        checked.least = fewer(least.as_ref());
        checked.least_finite = least.as_ref().map(|least| least.flips);
        let found = self.least(&all, &finite, &mut checked.tried);
        checked.exhausted = compare("least flips of numbers", checked.least_finite, &found)?;
        if let Some(least) = &least {
            let after = self.after(&matrix, &least.witness, &hidden, &team)?;
            if after.is_none_or(|after| after == token) || least.witness.len() != least.flips {
                return Err(differ("witness", &least, &after));
            }
        }

        // Flips that make a code NaN, and all flips together.
        let own = self.to_nan();
        let certified = rows.nan().map(|nan| (nan.flips, nan.single.clone()));
        if certified != own {
            return Err(differ("flips to NaN", &certified, &own));
        }
        if let Some(nan) = rows.nan() {
            let after = self.after(&matrix, &nan.witness, &hidden, &team)?;
            if after.is_some() || nan.witness.len() != nan.flips {
                return Err(differ("witness of NaN", &nan, &after));
            }
            let found = self.least(&all, &loses, &mut checked.tried);
            compare("least flips", checked.least, &found)?;
        }

        // Within one word, row or line, over all units.
        for within in [Within::Word, Within::Row, Within::Line] {
            let unit = |flip: &Flip| {
                let of_row = layout.width().word_of(flip.column as usize, usize::from(flip.bit));
                let word = flip.row as usize * layout.words_per_row() + of_row;
                match within {
                    Within::Word => word,
                    Within::Row => flip.row as usize,
                    Within::Line => word / 16,
                }
            };
            let mut units: Vec<usize> = all.iter().map(unit).collect();
            units.sort_unstable();
            units.dedup();
            let certified = least_flips_within(&position, within);
            let flips = fewer(certified.as_ref());
            // The least that was found, and up to where every unit was tried.
            let (mut least, mut up_to) = (None, usize::MAX);
            for one in units {
                let among: Vec<Flip> = all.iter().filter(|flip| unit(flip) == one).copied().collect();
                match self.least(&among, &loses, &mut checked.tried) {
                    Found::Least(found) => least = Some(least.map_or(found, |least: usize| least.min(found))),
                    Found::NotUpTo(size) if size < among.len() => up_to = up_to.min(size),
                    Found::NotUpTo(_) => {}
                }
            }
            let best = match least {
                Some(least) if least <= up_to.saturating_add(1) => Found::Least(least),
                _ => Found::NotUpTo(up_to),
            };
            compare(within.name(), flips, &best)?;
            if let Some(least) = certified {
                let after = self.after(&matrix, &least.witness, &hidden, &team)?;
                let units: std::collections::BTreeSet<usize> = least.witness.iter().map(unit).collect();
                if after.is_none_or(|after| after == token) || units.len() > 1 {
                    return Err(differ(&format!("witness within a {}", within.name()), &least, &after));
                }
            }
        }

        // Toward each row.
        for row in 0..layout.rows() {
            let certified = toward(&position, row);
            let wins = move |logits: Option<&[f64]>| logits.is_some_and(|logits| top(logits) == row);
            let found = self.least(&all, &wins, &mut checked.tried);
            compare("toward", certified.as_ref().map(|toward| toward.flips), &found)?;
            if let Some(toward) = certified {
                let after = self.after(&matrix, &toward.witness, &hidden, &team)?;
                if after != Some(row) || toward.witness.len() != toward.flips {
                    return Err(differ("witness toward", &toward, &after));
                }
            }
        }

        // The census, flip by flip.
        let mut critical = Vec::new();
        for flip in &all {
            if self.after(&matrix, &[*flip], &hidden, &team)? != Some(token) {
                critical.push(*flip);
            }
        }
        critical.sort_unstable();
        let mut certified: Vec<Flip> =
            census(std::slice::from_ref(&position), &team)[0].critical().map(|hit| hit.flip).collect();
        certified.extend(rows.nan().iter().flat_map(|nan| &nan.single));
        certified.sort_unstable();
        checked.critical = critical.len();
        if certified != critical {
            return Err(differ("critical bits", &certified, &critical));
        }

        // Scales and biases, bit by bit.
        let certified = scale_census(std::slice::from_ref(&position), &team);
        for (tensor, certified) in [Tensor::Scales, Tensor::Biases].into_iter().zip(certified) {
            let (mut critical, mut not_finite) = (0, 0);
            let (size, groups) = (self.scale_type.size(), layout.groups_per_row());
            let elements = layout.rows() * layout.columns(tensor);
            for bit in 0..size * 8 * elements {
                let (element, bit) = (bit / (8 * size), bit % (8 * size));
                let data = matrix.part(tensor).expect("it has the tensor");
                let mut bytes = data[element * size..][..size].to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let value = f64::from(self.scale_type.get(&bytes, 0));
                not_finite += usize::from(!value.is_finite());
                let (row, group) = (element / groups, element % groups);
                critical += usize::from(!value.is_finite() || self.top_with(row, group, tensor, value) != token);
            }
            let total = 8 * size * elements;
            if (certified.critical_bits, certified.nonfinite_bits, certified.total_bits)
                != (critical, not_finite, total)
            {
                return Err(differ(tensor.name(), &certified, &(critical, not_finite)));
            }
        }
        Ok(checked)
    }

    /// The token after one scale or bias has become `value`, which may be so small or so large that the sum is not
    /// exact any more; the sign of a sum of two numbers is.
    fn top_with(&self, row: usize, group: usize, tensor: Tensor, value: f64) -> usize {
        let (mut scales, mut biases) = (wide(&self.scales), wide(&self.biases));
        if tensor == Tensor::Scales {
            scales[row][group] = 0.0;
        } else {
            biases[row][group] = 0.0;
        }
        let logits = self.logits(&self.codes, &scales, &biases);
        let size = self.format.group_size();
        let columns = group * size..(group + 1) * size;
        let codes = self.format.codes();
        let of = |c: usize| if tensor == Tensor::Scales { self::value(codes, self.codes[row][c]) } else { 1.0 };
        let added = value * columns.map(|c| of(c) * self.hidden_at(c)).sum::<f64>();
        let mut others: Vec<f64> = logits.clone();
        others[row] = f64::NEG_INFINITY;
        let best = top(&others);
        let ahead = (logits[row] - logits[best]) + added;
        if ahead > 0.0 || (ahead == 0.0 && row < best) { row } else { best }
    }

    /// The token after flips, by the kernel; `None` where a logit is not finite.
    fn after(
        &self,
        matrix: &MatrixRef<'_>,
        flips: &[Flip],
        hidden: &[f32],
        team: &Team,
    ) -> Result<Option<usize>, String> {
        let edit: Edit = Flip::edit(flips);
        let plan = edit.plan(matrix).map_err(|error| error.to_string())?;
        let mut logits = self.project(matrix, hidden, team);
        for (&row, patch) in &plan.rows {
            let mut weights = vec![0.0; COLS];
            scalar::dequantize_row(&patch.view(), 0, 0, &mut weights);
            logits[row] = scalar::dot(&weights, hidden) + self.constant(row);
        }
        let logits: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
        Ok(logits.iter().all(|logit| logit.is_finite()).then(|| top(&logits)))
    }

    /// The logits of all rows, by the kernel.
    fn project(&self, matrix: &MatrixRef<'_>, hidden: &[f32], team: &Team) -> Vec<f32> {
        let mut out = vec![f32::NAN; matrix.layout().rows()];
        let x = Activations::from_rows(Kernel::SCALAR, hidden.len(), hidden);
        let products = vec![Product { shift: 0, x: x.all(), out: &mut out }];
        multiply(Kernel::SCALAR, team, &mut [Pass { weights: WeightsRef::Quantized(*matrix), products }]);
        out.iter_mut().enumerate().for_each(|(row, logit)| *logit += self.constant(row));
        out
    }
}

/// What a code stands for, by the definition of its format.
fn value(codes: Codes, code: u32) -> f64 {
    match codes {
        Codes::Affine(_) => f64::from(code),
        Codes::E2m1 => f64::from(small_float(code, 2, 1)),
        Codes::E4m3 => f64::from(small_float(code, 4, 3)),
    }
}

fn wide(values: &[Vec<f32>]) -> Vec<Vec<f64>> {
    values.iter().map(|row| row.iter().map(|&value| f64::from(value)).collect()).collect()
}

/// The first largest.
fn top(logits: &[f64]) -> usize {
    (1..logits.len()).fold(0, |best, row| if logits[row] > logits[best] { row } else { best })
}

/// All sets of flips of one size.
struct Sets<'a> {
    head: &'a SmallHead,
    among: &'a [Flip],
    goal: Goal<'a>,
    codes: Vec<Vec<u32>>,
    /// Codes that are NaN count as 0 here.
    logits: Vec<f64>,
    /// How many codes are NaN.
    nan: usize,
    tried: u64,
}

impl Sets<'_> {
    /// Whether the goal holds of some set of `left` flips more, from `first` on.
    fn any(&mut self, first: usize, left: usize) -> bool {
        if left == 0 {
            self.tried += 1;
            return (self.goal)((self.nan == 0).then_some(&self.logits));
        }
        for i in first..=self.among.len() - left {
            self.flip(i);
            let found = self.any(i + 1, left - 1);
            self.flip(i);
            if found {
                return true;
            }
        }
        false
    }

    /// Flips a bit of the codes, and brings its row's logit up to date from what the code now is.
    fn flip(&mut self, i: usize) {
        let Flip { row, column, bit } = self.among[i];
        let (row, column) = (row as usize, column as usize);
        let old = self.codes[row][column];
        let new = old ^ 1 << bit;
        self.codes[row][column] = new;
        let [old, new] = [old, new].map(|code| value(self.head.format.codes(), code));
        self.nan = self.nan + usize::from(new.is_nan()) - usize::from(old.is_nan());
        let [old, new] = [old, new].map(|value| if value.is_nan() { 0.0 } else { value });
        self.logits[row] += self.head.scale(row, column) * (new - old) * self.head.hidden_at(column);
    }
}
