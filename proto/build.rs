//! Compiles `evocache/v1/*.proto` with protox, so that no `protoc` is needed to build evocache.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(feature = "wire")]
    wire()?;
    Ok(())
}

#[cfg(feature = "wire")]
fn wire() -> Result<(), Box<dyn std::error::Error>> {
    const FILES: [&str; 5] = [
        "evocache/v1/types.proto",
        "evocache/v1/search_service.proto",
        "evocache/v1/worker_service.proto",
        "evocache/v1/fleet_service.proto",
        "evocache/v1/store_service.proto",
    ];
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    #[expect(clippy::disallowed_methods, reason = "this is how cargo tells a build script where to write")]
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("evocache_v1.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        // Maps in key order: the same message always has the same bytes, and what is stored can be compared.
        .btree_map(".")
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
