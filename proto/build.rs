//! Compiles the messages without a `protoc` on the machine: protox parses, tonic-prost-build generates.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["common", "namespace", "chunk", "chunkserver", "admin", "watch"]
        .map(|f| format!("dfs/v1/{f}.proto"));
    let set = protox::compile(&files, ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(set)?;
    println!("cargo:rerun-if-changed=dfs");
    Ok(())
}
