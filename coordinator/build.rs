//! What only tests may plant in a coordinator, as `cfg`s: there is no feature that `--all-features` could ship.
//!
//! `EVOCACHE_PLANT=faults` compiles the named moments of `faults.rs` in; `EVOCACHE_PLANT=bug` compiles leases without fences
//! into the domain, which the simulation must find. A build without debug assertions refuses both (`lib.rs` of each crate).
//!
//! The crates below `coordinator` share this script, so it does not name itself to cargo: that path would be missing in them,
//! and cargo would run the script on every build.

#![expect(clippy::disallowed_methods, reason = "how a build script and cargo talk")]

fn main() {
    println!("cargo::rustc-check-cfg=cfg(faults, planted_bug)");
    println!("cargo::rerun-if-env-changed=EVOCACHE_PLANT");
    match std::env::var("EVOCACHE_PLANT").as_deref() {
        Err(_) | Ok("") => {}
        Ok("faults") => println!("cargo::rustc-cfg=faults"),
        Ok("bug") => println!("cargo::rustc-cfg=planted_bug"),
        Ok(other) => println!("cargo::error=EVOCACHE_PLANT is '{other}'; it may be 'faults' or 'bug'"),
    }
}
