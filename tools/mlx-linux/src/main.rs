//! Does on Linux what the build script of mlx-sys does on macOS, with MLX as PyPI's `mlx[cpu]` wheel brings it.
//!
//! That script downloads MLX's sources and links Apple's frameworks. Its crate has `links = "mlx"`, so a configuration
//! of Cargo can take its place. This program makes what that configuration names: `libmlxc.a`, from the C interface that
//! the published crate contains, and `bindings.rs`. The crates and the lock file stay as they are.
//!
//! ```text
//! mlx-linux MANIFEST WHEEL OUT     MANIFEST: of the project; WHEEL: the folder `mlx` in site-packages
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The crate whose build script is replaced. Another version may ask for another MLX.
const CRATE: (&str, &str) = ("mlx-sys", "0.7.0");

fn main() -> Result<()> {
    let args: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [manifest, wheel, out] = args.as_slice() else { bail!("usage: mlx-linux MANIFEST WHEEL OUT") };
    let wheel = fs::canonicalize(wheel).with_context(|| format!("no wheel in {}", wheel.display()))?;
    fs::create_dir_all(out)?;
    let out = fs::canonicalize(out)?;
    let sources = sources(manifest)?;
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    library(&sources, &wheel, &out, &target)?;
    bindings(&sources, &out)?;
    fs::write(out.join("cargo.toml"), config(&wheel, &out, &target))?;
    Ok(())
}

/// The folder of mlx-c in the crate, which Cargo has unpacked.
fn sources(manifest: &Path) -> Result<PathBuf> {
    let asked = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["metadata", "--format-version=1", "--locked", "--features=mlx", "--manifest-path"])
        .arg(manifest)
        .output()
        .context("cannot run cargo")?;
    if !asked.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&asked.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&asked.stdout)?;
    let (name, version) = CRATE;
    let package = metadata["packages"].as_array().into_iter().flatten().find(|package| package["name"] == name);
    let package = package.with_context(|| format!("{name} is not among the dependencies"))?;
    if package["version"] != version {
        bail!("{name} is {} here, and this recipe was tried with {version}", package["version"]);
    }
    let manifest = Path::new(package["manifest_path"].as_str().context("a package without a path")?);
    Ok(manifest.with_file_name("src").join("mlx-c"))
}

/// Files of a folder with this extension, in the order of their names.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut found = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    found.sort();
    Ok(found)
}

/// `libmlxc.a`.
fn library(sources: &Path, wheel: &Path, out: &Path, target: &str) -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .target(target)
        .host(target)
        .out_dir(out)
        // It only passes calls on.
        .opt_level(1)
        .debug(false)
        .warnings(false)
        .cargo_metadata(false)
        .flag("-include")
        .flag(here.join("format.h"))
        .include(sources)
        // MLX's own headers are not ours to be warned about.
        .flag("-isystem")
        .flag(wheel.join("include"))
        .files(files(&sources.join("mlx/c"), "cpp")?)
        .file(here.join("compat.cpp"))
        .try_compile("mlxc")
        .context("cannot build mlx-c")
}

/// `bindings.rs`, of the same headers that mlx-sys gives to bindgen.
fn bindings(sources: &Path, out: &Path) -> Result<()> {
    // PyPI's libclang comes without the compiler's own headers, such as stddef.h.
    let asked = Command::new("cc").arg("-print-file-name=include").output().context("cannot run cc")?;
    let compiler = String::from_utf8(asked.stdout)?;
    let mut builder = bindgen::Builder::default()
        .rust_target(bindgen::RustTarget::stable(73, 0).ok().context("an unknown version of Rust")?)
        .clang_arg(format!("-I{}", sources.display()))
        .clang_arg(format!("-isystem{}", compiler.trim()))
        .blocklist_function("malloc")
        .blocklist_function("realloc");
    for header in files(&sources.join("mlx/c"), "h")? {
        builder = builder.header(header.to_string_lossy());
    }
    let mut text =
        builder.generate().context("cannot generate bindings; does LIBCLANG_PATH name libclang.so?")?.to_string();
    if !text.contains("fn mlx_array_item_float16") {
        text.push_str(HALVES);
    }
    Ok(fs::write(out.join("bindings.rs"), text)?)
}

/// What stands in for the build script. No flags of rustc: they would have everything else built anew.
fn config(wheel: &Path, out: &Path, target: &str) -> String {
    let (libraries, own) = (wheel.join("lib"), out.display());
    format!(
        "[target.{target}.mlx]\n\
         rustc-link-search = [\"native={own}\", \"native={}\"]\n\
         rustc-link-lib = [\"static=mlxc\", \"dylib=mlx\", \"dylib=stdc++\"]\n\
         rustc-env = {{ OUT_DIR = \"{own}\" }}\n",
        libraries.display()
    )
}

/// The declarations that Apple's compilers give rise to, of the functions in `compat.cpp`.
const HALVES: &str = "
#[repr(transparent)]
#[derive(Debug, Default, Copy, Clone)]
pub struct float16_t(pub u16);
pub type bfloat16_t = u16;
unsafe extern \"C\" {
    pub fn mlx_array_item_float16(res: *mut float16_t, arr: mlx_array) -> ::std::os::raw::c_int;
    pub fn mlx_array_data_float16(arr: mlx_array) -> *const float16_t;
    pub fn mlx_array_item_bfloat16(res: *mut bfloat16_t, arr: mlx_array) -> ::std::os::raw::c_int;
    pub fn mlx_array_data_bfloat16(arr: mlx_array) -> *const bfloat16_t;
}
";
