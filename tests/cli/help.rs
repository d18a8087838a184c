//! Help, version and completions.

use super::run;

const COMMANDS: [&str; 14] = [
    "ladder",
    "probe",
    "sweep",
    "bisect",
    "map",
    "campaign",
    "replay",
    "compare",
    "relabel",
    "merge",
    "inspect",
    "verify",
    "pull",
    "completions",
];

#[test]
fn help_of_every_command_is_printed_on_stdout() {
    for command in COMMANDS {
        for flag in ["--help", "-h"] {
            let help = run(&[command, flag]).exits(0);
            assert!(help.stdout.contains(&format!("Usage: headroom {command}")), "{}", help.stdout);
            assert_eq!(help.stderr, "");
        }
    }
}

#[test]
fn help_names_every_command_with_examples_and_exit_codes() {
    for args in [&["--help"][..], &["-h"], &["help"]] {
        let help = run(args).exits(0).stdout;
        for expected in ["Examples:", "headroom verify --model", "Exit codes: 0 done"] {
            assert!(help.contains(expected), "{args:?} lacks {expected:?}: {help}");
        }
        for command in COMMANDS {
            assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {help}");
        }
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    assert_eq!(run(&["--version"]).exits(0).stdout, concat!("headroom ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]).exits(0);
        assert_eq!(script.stderr, "");
        for word in ["headroom", "ladder", "probe", "prompt-ids", "at-least"] {
            assert!(script.stdout.contains(word), "{shell}: {word}");
        }
    }
}
