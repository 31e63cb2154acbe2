//! How the program is linked.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Where the linker is LLD, the same code is kept once: what is generic is often the same for many types, and the less of it
    // there is the less memory an idle gateway takes.
    if std::env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
        // What has to be changed for where the program comes to lie is a list of 10 MB, all of which is read at each start; packed
        // it is a hundredth.
        if knows_packed_relocations() {
            println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        }
    }
}

/// Whether the C library of this machine takes such a program, as glibc does since 2.36; a program for an older one is not packed.
fn knows_packed_relocations() -> bool {
    let said = Command::new("getconf").arg("GNU_LIBC_VERSION").output().ok();
    let said = said.and_then(|said| String::from_utf8(said.stdout).ok()).unwrap_or_default();
    let version = said.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    version.is_some_and(|(major, minor)| (major.parse::<u32>().ok(), minor.parse::<u32>().ok()) >= (Some(2), Some(36)))
}
