//! Holds our `.proto` files against the descriptors of every supported client.
//!
//! We declare a subset: what a client has and we don't is no matter. What we declare must be in at least one
//! client, and must agree with every client that has it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends where something unexpected happens")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
};

const CLIENTS: [&str; 3] = ["0.63.99", "0.77.0", "1.6.4"];
const PACKAGE: &str = ".modal.client";

/// A difference that does no harm.
#[derive(Debug)]
struct Allowed {
    client: &'static str,
    place: &'static str,
    /// What the client declares there.
    theirs: &'static str,
    #[expect(dead_code, reason = "for who reads the table or a failure of it")]
    reason: &'static str,
}

const fn allowed(
    client: &'static str,
    place: &'static str,
    theirs: &'static str,
    reason: &'static str,
) -> Allowed {
    Allowed { client, place, theirs, reason }
}

const ALLOWED: &[Allowed] = &[
    allowed(
        "0.63.99",
        ".modal.client.AppCreateResponse field 2",
        "string app_logs_url",
        "renamed; the same address of a page",
    ),
    allowed(
        "0.63.99",
        ".modal.client.AppListResponse field 1",
        "repeated .modal.client.AppStats apps",
        "an item of another name with the same fields 1 to 10; its field 11 is a number, ours a message, which a reader skips",
    ),
    allowed(
        "0.77.0",
        "method ModalClient/AppRollback",
        "(.modal.client.AppRollbackRequest) returns (.google.protobuf.Empty)",
        "answers with fields, which a reader of an empty message skips",
    ),
    allowed("0.63.99", ".modal.client.Function field 34", "uint32 allow_concurrent_inputs", "renamed"),
    allowed(
        "0.63.99",
        ".modal.client.FunctionOptions field 10",
        "optional uint32 allow_concurrent_inputs",
        "renamed",
    ),
    allowed(
        "0.63.99",
        ".modal.client.FunctionCallGetDataRequest field 1",
        "string function_call_id",
        "became a choice later, which is written the same",
    ),
    allowed(
        "0.77.0",
        ".modal.client.FunctionCallGetDataRequest field 1",
        "string function_call_id",
        "became a choice later, which is written the same",
    ),
    allowed(
        "0.63.99",
        ".modal.client.FunctionCallPutDataRequest field 1",
        "string function_call_id",
        "became a choice later, which is written the same",
    ),
    allowed(
        "0.77.0",
        ".modal.client.FunctionCallPutDataRequest field 1",
        "string function_call_id",
        "became a choice later, which is written the same",
    ),
    allowed("0.63.99", ".modal.client.VolumeFsVersion value 0", "UNSPECIFIED", "renamed"),
    allowed("0.63.99", ".modal.client.VolumeFsVersion value 1", "V1", "renamed"),
    allowed("0.63.99", ".modal.client.VolumeFsVersion value 2", "V2", "renamed"),
];

/// The declarations of a set of files, by full name.
#[derive(Default)]
struct Declarations {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
    /// By `Service/Method`.
    methods: BTreeMap<String, MethodDescriptorProto>,
}

impl Declarations {
    /// Those of our package in the set.
    fn of(files: &FileDescriptorSet) -> Declarations {
        let mut all = Declarations::default();
        for file in files.file.iter().filter(|file| format!(".{}", file.package()) == PACKAGE) {
            for message in &file.message_type {
                all.add_message(PACKAGE, message);
            }
            for declared in &file.enum_type {
                all.enums.insert(format!("{PACKAGE}.{}", declared.name()), declared.clone());
            }
            for service in &file.service {
                for method in &service.method {
                    all.methods.insert(format!("{}/{}", service.name(), method.name()), method.clone());
                }
            }
        }
        all
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = format!("{scope}.{}", message.name());
        for nested in &message.nested_type {
            self.add_message(&name, nested);
        }
        for declared in &message.enum_type {
            self.enums.insert(format!("{name}.{}", declared.name()), declared.clone());
        }
        self.messages.insert(name, message.clone());
    }

    /// Everything that can be compared, as place and description. Two sides agree on a place if they give
    /// the same description.
    fn facts(&self) -> BTreeMap<String, String> {
        let mut facts = BTreeMap::new();
        for (name, message) in &self.messages {
            for field in &message.field {
                let place = format!("{name} field {}", field.number());
                facts.insert(place, describe_field(field, message));
            }
        }
        for (name, declared) in &self.enums {
            for value in &declared.value {
                facts.insert(format!("{name} value {}", value.number()), value.name().to_owned());
            }
        }
        for (name, method) in &self.methods {
            facts.insert(format!("method {name}"), describe_method(method));
        }
        facts
    }
}

fn describe_field(field: &FieldDescriptorProto, message: &DescriptorProto) -> String {
    let kind = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => field.type_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    let label = match field.label() {
        Label::Repeated => "repeated ",
        _ if field.proto3_optional() => "optional ",
        _ => "",
    };
    let choice = match field.oneof_index {
        Some(index) if !field.proto3_optional() => {
            let index = usize::try_from(index).unwrap();
            format!(" in oneof {}", message.oneof_decl[index].name())
        }
        _ => String::new(),
    };
    format!("{label}{kind} {}{choice}", field.name())
}

fn describe_method(method: &MethodDescriptorProto) -> String {
    let stream = |streams| if streams { "stream " } else { "" };
    format!(
        "({}{}) returns ({}{})",
        stream(method.client_streaming()),
        method.input_type(),
        stream(method.server_streaming()),
        method.output_type()
    )
}

fn ours() -> Declarations {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = protox::compile(["modal/client/service.proto"], [proto]).unwrap();
    // Through bytes: the compiler's descriptors may be of another version of the library.
    let bytes = files.encode_to_vec();
    Declarations::of(&FileDescriptorSet::decode(bytes.as_slice()).unwrap())
}

fn client(version: &str) -> Declarations {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = root.join(format!(".venvs/client-{version}/bin/python"));
    assert!(python.exists(), "{} is missing: run scripts/venvs/clients.sh", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/descriptors.py");
    let output = Command::new(python).arg(script).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the descriptors of client {version}: {stderr}");
    let declarations = Declarations::of(&FileDescriptorSet::decode(output.stdout.as_slice()).unwrap());
    assert!(declarations.methods.len() > 50, "client {version} declares almost nothing");
    declarations
}

#[test]
fn what_we_declare_agrees_with_every_client_that_has_it() {
    let ours = ours().facts();
    let clients = CLIENTS.map(|version| (version, client(version).facts()));
    assert!(ours.len() > 100, "our files declare almost nothing");

    let mut wrong = Vec::new();
    let mut used = Vec::new();
    for (place, declared) in &ours {
        let mut agreeing = 0;
        for (version, facts) in &clients {
            match facts.get(place) {
                Some(theirs) if theirs == declared => agreeing += 1,
                Some(theirs) => {
                    let allowed = ALLOWED.iter().position(|known| {
                        known.client == *version && known.place == place && known.theirs == theirs
                    });
                    match allowed {
                        Some(index) => used.push(index),
                        None => {
                            wrong.push(format!("{place}\n    ours:    {declared}\n    {version}: {theirs}"))
                        }
                    }
                }
                None => {}
            }
        }
        if agreeing == 0 {
            wrong.push(format!("{place}\n    ours:    {declared}\n    in no client"));
        }
    }
    assert!(wrong.is_empty(), "{} places differ:\n{}", wrong.len(), wrong.join("\n"));

    let unused: Vec<_> =
        (0..ALLOWED.len()).filter(|index| !used.contains(index)).map(|index| &ALLOWED[index]).collect();
    assert!(unused.is_empty(), "differences that are allowed but not there: {unused:?}");
}
