//! How far the lock of a file reaches.
//!
//! `flock` is a matter of one machine, but for file systems that send it to a server. Linux does that for NFS, as a lock of
//! the whole file by `fcntl`, and for Lustre, CephFS, GPFS and their like; and each has an option of mounting that keeps locks
//! on the machine. A process cannot tell by trying, so the list of mounts is asked.

use std::{fs, path::Path};

/// How far a lock reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Every process that opens the file, as far as is known.
    Everywhere,
    /// Processes of this machine, though others see the file, too.
    ThisMachine,
    /// Nobody: the file system refuses locks.
    Nobody,
}

/// How far the lock of `path`, which is held, reaches.
pub(super) fn reach(path: &Path) -> Reach {
    // Linux alone has this list; elsewhere a lock is believed.
    match fs::read_to_string("/proc/self/mountinfo") {
        Ok(mounts) if is_local(&mounts, path) => Reach::ThisMachine,
        _ => Reach::Everywhere,
    }
}

/// Whether `path` lies on a mount that many machines may have and that keeps locks on one of them.
fn is_local(mounts: &str, path: &Path) -> bool {
    let mounted = mounts.lines().filter_map(Mount::of).filter(|mount| path.starts_with(&mount.point));
    // Of mounts above each other the last one is seen.
    let seen = mounted.reduce(|best, mount| if mount.point.len() >= best.point.len() { mount } else { best });
    let Some(Mount { kind, options, .. }) = seen else { return false };
    let has = |wanted: &[&str]| options.split(',').any(|option| wanted.contains(&option));
    match kind {
        "nfs" | "nfs4" => has(&["nolock", "local_lock=flock", "local_lock=all"]),
        "lustre" => has(&["localflock"]),
        _ => false,
    }
}

/// A line of `/proc/self/mountinfo`: see proc(5).
struct Mount<'a> {
    point: String,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (before, behind) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?;
        let mut behind = behind.split(' ');
        let (kind, _source, options) = (behind.next()?, behind.next()?, behind.next()?);
        Some(Self { point: unescaped(point), kind, options })
    }
}

/// A path as the list of mounts has it: a space, a tab, a line end and a backslash are octal numbers there.
fn unescaped(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(path.to_owned(), |path, (escaped, plain)| path.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 21 0:35 / /home rw,relatime shared:20 - nfs4 server:/home rw,vers=4.2,rsize=1048576,local_lock=none,addr=10.0.0.1
41 21 0:36 / /old rw,relatime shared:21 - nfs server:/old rw,vers=3,nolock,local_lock=none,addr=10.0.0.1
42 21 0:37 / /old/new\\040one rw shared:22 - nfs server:/new rw,vers=3,local_lock=posix,addr=10.0.0.1
43 21 0:38 / /flock rw - nfs4 server:/flock rw,vers=4.0,local_lock=flock
44 21 0:39 / /all rw - nfs4 server:/all rw,vers=4.0,local_lock=all
45 21 0:40 / /lustre rw - lustre mgs@tcp:/fs rw,flock,user_xattr
46 21 0:41 / /scratch rw - lustre mgs@tcp:/fs rw,localflock
47 21 0:42 / /scratch rw - tmpfs none rw,nolock
48 21 short
";

    #[test]
    fn a_lock_that_a_mount_keeps_on_one_machine_is_known() {
        for (path, local) in [
            ("/x", false),
            ("/home/x", false),
            ("/old/x", true),
            ("/old", true),
            ("/older/x", false),
            ("/old/new one/x", false),
            ("/flock/a/b", true),
            ("/all/a", true),
            ("/lustre/a", false),
            // What is mounted over it is seen.
            ("/scratch/a", false),
        ] {
            assert_eq!(is_local(MOUNTS, Path::new(path)), local, "{path}");
        }
        let without_the_cover: String =
            MOUNTS.lines().filter(|line| !line.contains("tmpfs")).collect::<Vec<_>>().join("\n");
        assert!(is_local(&without_the_cover, Path::new("/scratch/a")));
        assert!(!is_local("", Path::new("/x")));
    }
}
