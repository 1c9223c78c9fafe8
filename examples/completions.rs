//! Writes the completions of all programs for bash, zsh and fish into a directory: `completions DIRECTORY`. For
//! packagers; `contrib/package` runs it. What stands for an interface is completed from the interfaces that there are.
#![allow(
    missing_docs,
    dead_code,
    reason = "the programs are included for the definitions of their command lines"
)]

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};

#[path = "../src/bin/aoefs-target.rs"]
mod target;
#[path = "../src/bin/aoefs-top/main.rs"]
mod top;

fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: completions DIRECTORY");
        return ExitCode::from(2);
    };
    match write(&PathBuf::from(directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("completions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    for mut command in [aoefs::cli::command(), target::Cli::command(), top::Cli::command()] {
        let name = command.get_name().to_owned();
        for (shell, file) in [
            (Shell::Bash, format!("{name}.bash")),
            (Shell::Zsh, format!("_{name}")),
            (Shell::Fish, format!("{name}.fish")),
        ] {
            std::fs::write(directory.join(file), completion(&mut command, &name, shell)?)?;
        }
    }
    Ok(())
}

fn completion(command: &mut Command, name: &str, shell: Shell) -> io::Result<String> {
    let mut text = Vec::new();
    generate(shell, command, name, &mut text);
    let text = String::from_utf8(text).map_err(io::Error::other)?;
    match name {
        "aoefs" => with_interfaces(&text, shell),
        _ => Ok(text),
    }
}

/// The crate knows no interfaces: the places after -i and --interface get them.
fn with_interfaces(text: &str, shell: Shell) -> io::Result<String> {
    let mut after = false;
    let mut changed = 0;
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut line = line.to_owned();
        let old = line.clone();
        match shell {
            Shell::Bash => {
                after = match line.trim() {
                    "--interface)" | "-i)" => true,
                    "return 0" => false,
                    _ => after,
                };
                if after {
                    line = line.replace(
                        r#"compgen -f "${cur}""#,
                        r#"compgen -W "$(ls /sys/class/net)" -- "${cur}""#,
                    );
                }
            }
            Shell::Zsh if line.contains("-i+[") || line.contains("--interface=[") => {
                line = line.replace(":IF:_default", ":IF:_net_interfaces");
            }
            Shell::Fish if line.contains(" -l interface ") => {
                line.push_str(" -f -a \"(ls /sys/class/net)\"");
            }
            _ => {}
        }
        changed += usize::from(line != old);
        lines.push(line + "\n");
    }
    match changed {
        0 => Err(io::Error::other(format!("{shell}: no place for interfaces was found"))),
        _ => Ok(lines.concat()),
    }
}
