//! Compiles `evocache/v1/*.proto` with protox, so that building evocache needs no `protoc`.

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
    #[expect(clippy::disallowed_methods, reason = "cargo passes the output folder in this variable")]
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("evocache_v1.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure()
        // Ordered maps make encoding deterministic, so that stored bytes can be compared.
        .btree_map(".")
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
