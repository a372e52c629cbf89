//! How an app gets from one version to the next.
//!
//! While an app is deployed again its clients tell the new functions one by one; what is published keeps its old
//! definition until they publish the whole. Then everything changes in one transaction: containers of the old version
//! finish what they hold and go, and what waits is for new ones.

use std::collections::{HashMap, HashSet};

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use crate::control::Control;
use crate::functions;
use crate::registry::RegistryError;

/// A version of an app that is to be written: what is said of it, without what it consists of.
#[derive(Debug, Clone, Default)]
pub(crate) struct NewDeployment {
    /// The name under which the app is found from then on.
    pub(crate) name: String,
    /// Version of the client that deploys.
    pub(crate) client_version: String,
    /// Who deploys, for people.
    pub(crate) deployed_by: String,
    pub(crate) tag: String,
    pub(crate) commit_info: Option<pb::CommitInfo>,
    pub(crate) kind: pb::DeploymentType,
    /// The version that it brings back; 0 = none.
    pub(crate) rollback_version: u32,
    /// The same for a repeated request.
    pub(crate) request_key: String,
}

/// What an app consists of, and what of it is new.
#[derive(Debug, Default)]
struct Contents {
    functions: HashMap<String, rec::Function>,
    classes: HashMap<String, rec::Class>,
    new_functions: HashSet<String>,
    new_classes: HashSet<String>,
}

impl Control {
    /// Gives a function its definition: at once, or, where the app is published with it, with the next publication.
    pub(crate) async fn define(&self, function: &rec::Function) -> Result<(), RegistryError> {
        let app = self.registry.app(&function.app_id);
        let is_published = app.is_some_and(|app| app.function_ids.values().any(|id| *id == function.id));
        let known = self
            .registry
            .function(&function.id)
            .filter(|known| is_published && functions::definition(&self.registry, known).is_some());
        if let Some(known) = known {
            let mut staging = (*known).clone();
            staging.staged = Some(rec::StagedFunction {
                client_version: function.client_version.clone(),
                definition: function.definition.clone(),
                data: function.data.clone(),
            });
            self.registry.put_function(staging).await?;
            return Ok(());
        }
        self.registry.put_function(function.clone()).await?;
        self.put_to_work(&function.app_id, &HashSet::from([function.id.clone()]));
        Ok(())
    }

    /// Gives a class its methods, in the same way.
    pub(crate) async fn define_class(&self, class: rec::Class) -> Result<rec::Class, RegistryError> {
        let app = self.registry.app(&class.app_id);
        let is_published = app.is_some_and(|app| app.class_ids.values().any(|id| *id == class.id));
        match self.registry.class(&class.id).filter(|_| is_published) {
            Some(known) => {
                let mut staging = (*known).clone();
                staging.staged = Some(rec::StagedClass {
                    function_id: class.function_id.clone(),
                    methods: class.methods.clone(),
                });
                self.registry.put_class(staging).await?;
            }
            None => drop(self.registry.put_class(class.clone()).await?),
        }
        Ok(class)
    }

    /// Publishes an app that isn't deployed: its objects are those that `app` names.
    pub(crate) async fn publish(&self, app: rec::App) -> Result<(), RegistryError> {
        let contents = self.staged_contents(&app);
        self.put_in_force(app, contents, None).await
    }

    /// Deploys an app under a name, all of the version at once. Another app of that name is replaced. Answers with the
    /// time.
    pub(crate) async fn deploy(&self, app: rec::App, new: NewDeployment) -> Result<f64, Status> {
        if new.name.is_empty() {
            return Err(Status::invalid_argument("an app is deployed under a name; none was given"));
        }
        if let Some(known) = self.repeated(&app.id, &new.request_key) {
            return Ok(known);
        }
        let previous = self.registry.deployed_app(&new.name, &app.environment);
        let (app_id, contents) = (app.id.clone(), self.staged_contents(&app));
        let deployed_at = self.deploy_contents(app, contents, new).await?;
        if let Some(previous) = previous
            && previous.id != app_id
        {
            self.stop_app(&previous.id).await?;
        }
        Ok(deployed_at)
    }

    /// Brings back what an app consisted of at an earlier version, as a new version. None: what it is now, in new
    /// containers. Answers with the time.
    pub(crate) async fn redeploy(
        &self,
        mut app: rec::App,
        earlier: Option<&rec::Deployment>,
        mut new: NewDeployment,
    ) -> Result<f64, Status> {
        if let Some(known) = self.repeated(&app.id, &new.request_key) {
            return Ok(known);
        }
        let mut contents = Contents::default();
        match earlier {
            Some(earlier) => {
                app.function_ids.clone_from(&earlier.function_ids);
                app.class_ids.clone_from(&earlier.class_ids);
                app.tags.clone_from(&earlier.tags);
                contents.functions = by_id(&earlier.functions, |function| &function.id);
                contents.classes = by_id(&earlier.classes, |class| &class.id);
                new.rollback_version = earlier.version;
            }
            None => {
                let published: HashSet<&String> =
                    app.function_ids.values().chain(app.class_ids.values()).collect();
                let functions = self.registry.functions_of(&app.id);
                let functions = functions.iter().filter(|function| published.contains(&function.id));
                contents.functions = functions.map(|found| (found.id.clone(), (**found).clone())).collect();
                let classes = self.registry.classes_of(&app.id);
                let classes = classes.iter().filter(|class| published.contains(&class.id));
                contents.classes = classes.map(|found| (found.id.clone(), (**found).clone())).collect();
            }
        }
        for function in contents.functions.values_mut() {
            let now = self.registry.function(&function.id).map_or(0, |now| now.generation);
            function.generation = now + 1;
            function.autoscaler = None;
            function.staged = None;
        }
        contents.classes.values_mut().for_each(|class| class.staged = None);
        contents.new_functions = contents.functions.keys().cloned().collect();
        contents.new_classes = contents.classes.keys().cloned().collect();
        self.deploy_contents(app, contents, new).await
    }

    /// The time of the newest version, if the request that made it comes again.
    fn repeated(&self, app_id: &str, request_key: &str) -> Option<f64> {
        let newest = self.registry.deployments(app_id).into_iter().next_back()?;
        (!request_key.is_empty() && newest.request_key == request_key).then_some(newest.deployed_at)
    }

    async fn deploy_contents(
        &self,
        mut app: rec::App,
        contents: Contents,
        new: NewDeployment,
    ) -> Result<f64, Status> {
        new.name.clone_into(&mut app.name);
        app.set_state(pb::AppState::Deployed);
        app.deployed_at = self.clock.now();
        app.version += 1;
        app.staged = None;
        let (app_id, deployed_at) = (app.id.clone(), app.deployed_at);
        let deployment = rec::Deployment {
            app_id: app_id.clone(),
            version: u32::try_from(app.version).unwrap_or_default(),
            deployed_at,
            client_version: new.client_version,
            deployed_by: new.deployed_by,
            tag: new.tag,
            commit_info: new.commit_info,
            deployment_type: new.kind.into(),
            rollback_version: new.rollback_version,
            function_ids: app.function_ids.clone(),
            class_ids: app.class_ids.clone(),
            tags: app.tags.clone(),
            functions: published(&app.function_ids, &contents.functions),
            classes: published(&app.class_ids, &contents.classes),
            request_key: new.request_key,
        };
        self.put_in_force(app, contents, Some(deployment)).await?;
        self.forget_heartbeat(&app_id);
        if let Err(error) = self.secrets.prune_app(&app_id, &self.registry.secrets_of(&app_id)).await {
            tracing::warn!(app = app_id, %error, "secrets that the app needs no more could not be removed");
        }
        Ok(deployed_at)
    }

    /// What the objects of an app become when it is published now.
    fn staged_contents(&self, app: &rec::App) -> Contents {
        let mut contents = Contents::default();
        for function in self.registry.functions_of(&app.id) {
            if function.binding.is_some() {
                continue;
            }
            let mut function = (*function).clone();
            if let Some(staged) = function.staged.take() {
                function.client_version = staged.client_version;
                function.definition = staged.definition;
                function.data = staged.data;
                function.generation += 1;
                // What was set at run time was meant for the definition before.
                function.autoscaler = None;
                contents.new_functions.insert(function.id.clone());
            }
            contents.functions.insert(function.id.clone(), function);
        }
        for class in self.registry.classes_of(&app.id) {
            let mut class = (*class).clone();
            if let Some(staged) = class.staged.take() {
                class.function_id = staged.function_id;
                class.methods = staged.methods;
                contents.new_classes.insert(class.id.clone());
            }
            contents.classes.insert(class.id.clone(), class);
        }
        contents.tie_classes(app);
        contents
    }

    /// Writes a new state of an app, then lets it work.
    async fn put_in_force(
        &self,
        app: rec::App,
        mut contents: Contents,
        deployment: Option<rec::Deployment>,
    ) -> Result<(), RegistryError> {
        let functions =
            contents.new_functions.iter().filter_map(|id| contents.functions.remove(id)).collect();
        let classes = contents.new_classes.iter().filter_map(|id| contents.classes.remove(id)).collect();
        let app_id = app.id.clone();
        self.registry.publish(app, functions, classes, deployment).await?;
        self.put_to_work(&app_id, &contents.new_functions);
        self.refresh_pools(&app_id);
        Ok(())
    }

    /// Replaces the containers of functions that have a new definition, and of the same classes with parameters.
    fn put_to_work(&self, app_id: &str, changed: &HashSet<String>) {
        for function in self.registry.functions_of(app_id) {
            let base = function.binding.as_ref().map_or(&function.id, |binding| &binding.function_id);
            if changed.contains(base) {
                self.with_scheduler(|scheduler, now| scheduler.renew(&function.id, now));
                self.refresh_pool(&function);
            }
        }
    }
}

impl Contents {
    /// Clients that name no function in their classes mean the one that is published as `NAME.*`.
    fn tie_classes(&mut self, app: &rec::App) {
        for (tag, class_id) in &app.class_ids {
            let Some(function_id) = app.function_ids.get(&format!("{tag}.*")) else { continue };
            let Some(class) = self.classes.get_mut(class_id) else { continue };
            if class.function_id != *function_id {
                class.function_id.clone_from(function_id);
                self.new_classes.insert(class_id.clone());
            }
        }
    }
}

fn by_id<T: Clone>(records: &[T], id: impl Fn(&T) -> &String) -> HashMap<String, T> {
    records.iter().map(|record| (id(record).clone(), record.clone())).collect()
}

/// Those that are published, in the order of their ids.
fn published<T: Clone>(tags: &HashMap<String, String>, records: &HashMap<String, T>) -> Vec<T> {
    let mut ids: Vec<&String> = tags.values().collect();
    ids.sort();
    ids.dedup();
    ids.into_iter().filter_map(|id| records.get(id).cloned()).collect()
}
