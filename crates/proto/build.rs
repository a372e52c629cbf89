//! Compiles the `.proto` files without a system `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(
        [
            "modal/client/service.proto",
            "homeport/worker/v1/worker.proto",
            "homeport/record/v1/record.proto",
            "homeport/admin/v1/admin.proto",
        ],
        ["proto"],
    )?;
    write_methods(&files)?;
    tonic_prost_build::configure().bytes(".").skip_debug(HIDDEN).compile_fds(files)?;
    Ok(())
}

/// Messages that hold secrets. Their `Debug` is written by hand, in `src/hidden.rs`.
const HIDDEN: [&str; 6] = [
    ".modal.client.SecretGetOrCreateRequest",
    ".modal.client.SecretUpdateRequest.Update",
    ".homeport.record.v1.SecretValues",
    ".homeport.worker.v1.StartTask",
    ".homeport.worker.v1.RunCommand",
    ".homeport.worker.v1.PullBase",
];

/// The names of the methods that the client's service declares, for those who must tell a call of
/// an unknown method from any other.
fn write_methods(files: &prost_types::FileDescriptorSet) -> std::io::Result<()> {
    let names: Vec<&str> = files
        .file
        .iter()
        .flat_map(|file| &file.service)
        .filter(|service| service.name() == "ModalClient")
        .flat_map(|service| &service.method)
        .map(|method| method.name())
        .collect();
    let path = std::path::Path::new(&std::env::var_os("OUT_DIR").unwrap_or_default()).join("methods.rs");
    std::fs::write(path, format!("&{names:?}"))
}
