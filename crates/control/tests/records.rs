//! Rows of the database whose records are not what we wrote.

use homeport_fuzz::Target;
use homeport_proto::client as pb;
use homeport_proto::record as rec;
use prost::Message;

fn outcome<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> &'static str {
    match M::decode(bytes) {
        Ok(record) => {
            // What was read can be written, and is the same then. Maps have no order, and NaN is like nothing.
            let written = record.encode_to_vec();
            let again = M::decode(written.as_slice());
            assert!(again.is_ok_and(|again| again.encoded_len() == written.len()
                && (again == record || format!("{record:?}").contains("NaN"))));
            "record"
        }
        Err(_) => "none",
    }
}

#[test]
fn fuzz_records() {
    let definition = pb::Function {
        module_name: "m".into(),
        function_name: "f".into(),
        mount_ids: vec!["mo-1".into()],
        resources: Some(pb::Resources { milli_cpu: 125, ..Default::default() }),
        ..Default::default()
    };
    let function = rec::Function { id: "fu-1".into(), app_id: "ap-1".into(), ..Default::default() };
    let app = rec::App { id: "ap-1".into(), name: "a".into(), created_at: 1.5, ..Default::default() };
    let call = rec::Call { id: "fc-1".into(), function_id: "fu-1".into(), ..Default::default() };
    let image = rec::Image { id: "im-1".into(), config_json: "{}".into(), ..Default::default() };
    let output = pb::FunctionGetOutputsItem { idx: 3, input_id: "in-1".into(), ..Default::default() };
    let seeds = [
        definition.encode_to_vec(),
        function.encode_to_vec(),
        app.encode_to_vec(),
        call.encode_to_vec(),
        image.encode_to_vec(),
        output.encode_to_vec(),
    ];
    Target::new(env!("CARGO_MANIFEST_DIR"), "records").fuzz(seeds, |bytes| {
        [
            outcome::<pb::Function>(bytes),
            outcome::<rec::Function>(bytes),
            outcome::<rec::App>(bytes),
            outcome::<rec::Call>(bytes),
            outcome::<rec::Image>(bytes),
            outcome::<pb::FunctionGetOutputsItem>(bytes),
        ]
        .join(" ")
    });
}
