//! Who called whom, for a caller who asks.

use homeport_proto::client as pb;
use tonic::Status;

use super::missing;
use crate::auth::Caller;
use crate::control::Control;
use crate::functions;

impl Control {
    pub(super) async fn function_get_call_graph(
        &self,
        _: &Caller,
        request: pb::FunctionGetCallGraphRequest,
    ) -> Result<pb::FunctionGetCallGraphResponse, Status> {
        let call_id = &request.function_call_id;
        if !self.recall(call_id).await? {
            return Err(Status::not_found(format!("what call {call_id} did was forgotten with its results")));
        }
        let mut answer = self
            .with_scheduler(|scheduler, _| {
                let graph = scheduler.call_graph(call_id)?;
                let mut answer =
                    pb::FunctionGetCallGraphResponse { truncated: graph.truncated, ..Default::default() };
                for (n, call) in graph.calls.iter().enumerate() {
                    answer.function_calls.push(pb::FunctionCallCallGraphInfo {
                        function_call_id: call.id.clone(),
                        // The caller of the outermost call is not in the graph.
                        parent_input_id: if n == 0 { String::new() } else { call.parent_input_id.clone() },
                        // Becomes the name below, where the definitions are at hand.
                        function_name: call.function_id.clone(),
                        ..Default::default()
                    });
                    let inputs = call.input_ids().filter_map(|id| scheduler.input(id));
                    answer.inputs.extend(inputs.map(|input| pb::InputCallGraphInfo {
                        input_id: input.id.clone(),
                        status: input.status().into(),
                        function_call_id: call.id.clone(),
                        task_id: input.task_id().to_owned(),
                    }));
                }
                Some(answer)
            })
            .ok_or_else(|| missing("call", call_id))?;
        for call in &mut answer.function_calls {
            let function = self.registry.find_function(&call.function_name).await?;
            let definition = function.and_then(|function| functions::definition(&self.registry, &function));
            let definition = definition.unwrap_or_default();
            call.function_name = definition.function_name;
            call.module_name = definition.module_name;
        }
        Ok(answer)
    }
}
