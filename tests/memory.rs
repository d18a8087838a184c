//! Law 9's other half: no bytes of a checkpoint make it take much memory. Alone in its program, since all that is
//! allocated is counted.

#![expect(clippy::print_stdout, reason = "a test says what it found")]

use lm_headroom::testing::{
    fuzz::decoded,
    oracles::{Case, Reached, checkpoint::Damaged, checkpoint::any_files},
};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// What a message, a map of names and a model of one layer take, however small the files are.
const CONSTANT: usize = 16 << 10;

#[test]
fn opening_any_files_takes_at_most_a_small_multiple_of_them() {
    let (mut reached, mut most) = (Reached::default(), 0.0_f64);
    let mut stream = blake3::Hasher::new().update(b"memory").finalize_xof();
    for _ in 0..4000 {
        let mut bytes = vec![0; Damaged::ENTROPY];
        stream.fill(&mut bytes);
        let case = decoded::<Damaged>(&bytes);
        let files = case.files();
        let size: usize = files.values().map(|file| file.len()).sum();
        let before = ALLOCATED.current_usage();
        ALLOCATED.reset_peak_usage();
        any_files(files, &mut reached).unwrap_or_else(|violation| panic!("{violation}"));
        let taken = ALLOCATED.peak_usage().saturating_sub(before);
        most = most.max(taken.saturating_sub(CONSTANT) as f64 / size as f64);
        assert!(taken <= CONSTANT + 4 * size, "{taken} bytes for files of {size}: {case:?}");
    }
    println!("at most {CONSTANT} bytes and {most:.2} times the files; {reached}");
    reached.require(Damaged::CLASSES).expect("every outcome");
}
