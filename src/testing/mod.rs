//! What tests, fuzz targets and benchmarks share.
pub mod fixture;
