//! Which kernel benches run.

use lm_headroom::kernels::Kernel;

/// The kernel that `HEADROOM_KERNEL` names (`avx2`, `avx512+blocks+logits`, ...), or the fastest here.
pub(crate) fn kernel() -> Kernel {
    let Ok(name) = std::env::var("HEADROOM_KERNEL") else { return Kernel::best() };
    Kernel::named(&name).unwrap_or_else(|| panic!("HEADROOM_KERNEL={name}: there is {:?}", names()))
}

fn names() -> Vec<String> {
    Kernel::available().iter().map(ToString::to_string).collect()
}
