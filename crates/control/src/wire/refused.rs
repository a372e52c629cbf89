//! What clients can ask for and this server doesn't have, in words that a user understands.

use homeport_proto::client as pb;

/// A family of methods, by the beginning of their names, and why there is none of it.
struct Refusal {
    methods: &'static str,
    text: &'static str,
}

const fn refusal(methods: &'static str, text: &'static str) -> Refusal {
    Refusal { methods, text }
}

/// The first that fits counts.
const REFUSALS: &[Refusal] = &[
    refusal(
        "AppGetTimeRangeStats",
        "statistics of apps are not there yet: see /metrics and `modal app logs`",
    ),
    refusal(
        "AppPromote",
        "staged deployments are not there yet: deploy the app, and roll it back if need be",
    ),
    refusal("AuditLog", "there is no audit log"),
    refusal("AuthToken", "what takes a token of its own (sandboxes, the input plane) is not there yet"),
    refusal("Attempt", "there is no input plane: calls go through this server itself"),
    refusal("CliCommandSuggest", "there are no suggestions for commands"),
    refusal("Cluster", "clusters of containers are not there yet"),
    refusal("ContainerCheckpoint", "memory snapshots are not there yet"),
    refusal(
        "ContainerExec",
        "commands in running containers (`modal container exec`, `modal shell`) are not there yet",
    ),
    refusal("ContainerFilesystemExec", "sandboxes are not there yet"),
    refusal("Curl", "web endpoints are not there yet"),
    refusal("Dict", "Dicts are not there yet: keep small values in a Volume or pass them as arguments"),
    refusal("Domain", "web endpoints, and so custom domains, are not there yet"),
    refusal("Endpoint", "web endpoints are not there yet"),
    refusal("EnvironmentBilling", "there is nothing to pay for, so there is no billing"),
    refusal("EnvironmentGetBudget", "there is nothing to pay for, so there are no budgets"),
    refusal("EnvironmentSetBudget", "there is nothing to pay for, so there are no budgets"),
    refusal("Environment", "there are no roles: everybody with a token may use every environment"),
    refusal("Flash", "servers behind a URL (`@app.server`, Flash) are not there yet"),
    refusal("FunctionGetFlash", "servers behind a URL (`@app.server`, Flash) are not there yet"),
    refusal("FunctionGetMetrics", "metrics of single functions are not there yet: see /metrics"),
    refusal("FunctionGetTimeRangeStats", "statistics of functions are not there yet: see /metrics"),
    refusal(
        "FunctionStartPtyShell",
        "interactive containers (`modal run -i`, `breakpoint()`, `modal shell`) are not there yet",
    ),
    refusal("ImageBuildChainGet", "logs of builds are not kept: what a build says is shown while it runs"),
    refusal(
        "ImageDelete",
        "images are not deleted one by one: `homeport storage gc` removes what nobody uses",
    ),
    refusal("Map", "there is no input plane: calls go through this server itself"),
    refusal("NotebookKernel", "notebooks on the server are not there yet"),
    refusal("Object", "there are no suggestions for names"),
    refusal("Proxy", "proxies with fixed addresses are not there yet"),
    refusal("Queue", "Queues are not there yet: use `.spawn()` and `.map()` to hand work to functions"),
    refusal("Sandbox", "sandboxes (and `modal shell`) are not there yet"),
    refusal("Server", "servers behind a URL (`@app.server`) are not there yet"),
    refusal("ServiceUser", "there are no service users: make a token for each with `homeport token create`"),
    refusal("TaskClusterHello", "clusters of containers are not there yet"),
    refusal(
        "TaskGetCommandRouterAccess",
        "commands in running containers (`modal container exec`, `modal shell`) are not there yet",
    ),
    refusal("TemplateList", "there are no templates"),
    refusal(
        "Token",
        "tokens are made where the server runs: `homeport token create`, `list` and `revoke`; then `modal token set`",
    ),
    refusal("Tunnel", "tunnels (`modal.forward`) are not there yet"),
    refusal("UserGroup", "there are no groups of users: everybody with a token may do everything"),
    refusal("WebhookToken", "web endpoints, and so tokens for them, are not there yet"),
    refusal("WorkspaceBilling", "there is nothing to pay for, so there is no billing"),
    refusal(
        "WorkspaceDashboard",
        "there is no dashboard: each app has a page, whose address is printed when it is run or deployed",
    ),
    refusal("WorkspaceMembers", "there are no members: everybody with a token may do everything"),
    refusal("Workspace", "a workspace has no settings here: this server is the workspace"),
];

/// Why a method is not there, if that has a name in a user's world.
pub(crate) fn feature(method: &str) -> Option<&'static str> {
    REFUSALS.iter().find(|refusal| method.starts_with(refusal.methods)).map(|refusal| refusal.text)
}

/// What a function asks for without which it is better not run: running it otherwise than asked would be a surprise, or
/// worse.
pub(super) fn absent(definition: &pb::Function) -> Option<&'static str> {
    let asked = [
        (definition.webhook_config.as_ref().is_some_and(|config| config.r#type != 0), "web endpoints"),
        (definition.http_config.is_some(), "servers behind a URL (`@app.server`)"),
        (definition.schedule.is_some(), "schedules"),
        (definition.block_network, "way to run a function without a network"),
        (definition.untrusted, "way to keep a function from the server (`restrict_modal_access`)"),
        (definition.i6pn_enabled, "private network between containers (`i6pn`)"),
        (definition.experimental_group_size > 0, "clusters of containers (`@modal.clustered`)"),
        (!definition.cloud_bucket_mounts.is_empty(), CLOUD_BUCKETS),
    ];
    asked.iter().find(|(asked, _)| *asked).map(|(_, what)| *what)
}

/// What options of a function ask for, in the same way.
pub(super) fn absent_option(options: &pb::FunctionOptions) -> Option<&'static str> {
    (!options.cloud_bucket_mounts.is_empty()).then_some(CLOUD_BUCKETS)
}

const CLOUD_BUCKETS: &str = "cloud bucket mounts";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_later_is_named_as_users_name_it() {
        for (method, word) in [
            ("DictGetOrCreate", "Dicts"),
            ("QueuePut", "Queues"),
            ("SandboxCreateV2", "sandboxes"),
            ("TunnelStart", "modal.forward"),
            ("ContainerExec", "container exec"),
            ("TokenFlowCreate", "homeport token create"),
            ("EnvironmentGetRoles", "no roles"),
            ("ServiceUserList", "service users"),
        ] {
            assert!(feature(method).is_some_and(|text| text.contains(word)), "{method}");
        }
        assert_eq!(feature("SomethingNew"), None);
    }

    #[test]
    fn no_refusal_stands_behind_one_that_fits_first() {
        for (index, later) in REFUSALS.iter().enumerate() {
            let earlier = REFUSALS[..index].iter().find(|earlier| later.methods.starts_with(earlier.methods));
            assert!(earlier.is_none(), "{} is never found", later.methods);
        }
    }

    #[test]
    fn nothing_is_refused_that_is_there() {
        // Families of which one half is there name the other half's methods only.
        let there = homeport_proto::CLIENT_METHODS.iter().filter(|method| feature(method).is_some());
        let families = ["Environment", "Token", "Workspace", "Object", "Server", "Map"];
        let wrong: Vec<_> =
            there.filter(|method| !families.iter().any(|family| method.starts_with(family))).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
