//! What functions say of Volumes, and what they are told.

use homeport_proto::client as pb;
use homeport_proto::record as rec;

use super::commits::Server;
use crate::functions;

fn mount(volume_id: &str, path: &str) -> pb::VolumeMount {
    pb::VolumeMount { volume_id: volume_id.to_owned(), mount_path: path.to_owned(), ..Default::default() }
}

async fn function(server: &Server, volume_id: &str) -> rec::Function {
    let app = rec::App { id: "ap-1".into(), environment: "main".into(), ..Default::default() };
    server.control.registry.put_app(app).await.unwrap();
    let definition = pb::Function {
        function_name: "train".into(),
        volume_mounts: vec![mount(volume_id, "/data")],
        object_dependencies: vec![pb::ObjectDependency { object_id: volume_id.to_owned() }],
        ..Default::default()
    };
    let function = rec::Function {
        id: "fu-1".into(),
        app_id: "ap-1".into(),
        definition: Some(definition),
        ..Default::default()
    };
    (*server.control.registry.put_function(function).await.unwrap()).clone()
}

#[tokio::test]
async fn the_layout_of_an_app_has_each_of_its_volumes_once_with_what_clients_hold_of_them() {
    let server = Server::new().await;
    let id = server.place.volume("weights").await;
    function(&server, &id).await;
    let layout = server.control.layout(&server.control.registry.app("ap-1").unwrap());
    let volumes: Vec<_> = layout.objects.iter().filter(|object| object.object_id == id).collect();
    let [object] = volumes.as_slice() else { panic!("{:?}", layout.objects) };
    let Some(pb::object::HandleMetadataOneof::VolumeMetadata(metadata)) = &object.handle_metadata_oneof
    else {
        panic!("{object:?}")
    };
    assert_eq!(metadata.name, "weights");
    assert!(metadata.creation_info.as_ref().unwrap().created_at > 0.0);
}

#[tokio::test]
async fn options_of_a_binding_replace_the_mounts_or_leave_them() {
    let server = Server::new().await;
    let (id, other) = (server.place.volume("weights").await, server.place.volume("other").await);
    function(&server, &id).await;
    let mounts = |options: pb::FunctionOptions| {
        let binding =
            rec::Binding { function_id: "fu-1".into(), options: Some(options), ..Default::default() };
        let bound = rec::Function { id: "fu-2".into(), binding: Some(binding), ..Default::default() };
        functions::definition(&server.control.registry, &bound).unwrap().volume_mounts
    };
    assert_eq!(mounts(pb::FunctionOptions::default()), [mount(&id, "/data")]);
    let none = pb::FunctionOptions { replace_volume_mounts: true, ..Default::default() };
    assert_eq!(mounts(none), []);
    let another = pb::FunctionOptions {
        replace_volume_mounts: true,
        volume_mounts: vec![mount(&other, "/other")],
        ..Default::default()
    };
    assert_eq!(mounts(another), [mount(&other, "/other")]);
}
