//! How the program is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Where the linker is LLD, the same code is kept once: what is generic is often the same for many types, and the less of it
    // there is the less memory an idle gateway takes.
    if std::env::var("TARGET").is_ok_and(|target| target == "x86_64-unknown-linux-gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
