use super::*;
use crate::clock::SystemClock;

struct Place {
    dir: tempfile::TempDir,
    meta: Meta,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let meta = Meta::open(dir.path()).await.unwrap();
        Self { dir, meta }
    }

    fn key_path(&self) -> PathBuf {
        self.dir.path().join("secrets.key")
    }

    async fn open(&self) -> Secrets {
        let clock = Arc::new(SystemClock::default());
        Secrets::load(self.meta.clone(), clock, self.key_path(), |app_id| app_id == "ap-1").await.unwrap()
    }
}

fn variables(pairs: &[(&str, &str)]) -> Variables {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Variables::checked(pairs).unwrap()
}

fn named(id: &str, name: &str, pairs: &[(&str, &str)]) -> NewSecret {
    NewSecret {
        id: id.to_owned(),
        name: name.to_owned(),
        environment: "main".to_owned(),
        variables: variables(pairs),
        ..Default::default()
    }
}

fn of_app(secrets: &Secrets, app_id: &str, pairs: &[(&str, &str)]) -> NewSecret {
    let id = secrets.anonymous_id(app_id, &variables(pairs)).unwrap();
    NewSecret { app_id: app_id.to_owned(), ..named(&id, "", pairs) }
}

fn opened(secrets: &Secrets, ids: &[&str]) -> Vec<(String, String)> {
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    secrets.environment(&ids).unwrap().into_iter().collect()
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[tokio::test]
async fn secrets_outlive_a_restart_and_the_later_one_wins() {
    let place = Place::new().await;
    let secrets = place.open().await;
    secrets.create_named(named("st-1", "one", &[("A", "1"), ("B", "1")]), IfExists::Fail).await.unwrap();
    secrets.create_named(named("st-2", "two", &[("B", "2")]), IfExists::Fail).await.unwrap();
    let again = place.open().await;
    assert_eq!(opened(&again, &["st-1", "st-2"]), [pair("A", "1"), pair("B", "2")]);
    assert_eq!(opened(&again, &["st-2", "st-1"]), [pair("A", "1"), pair("B", "1")]);
    let missing = again.environment(&["st-3".to_owned()]).unwrap_err();
    assert!(matches!(missing, SecretError::Missing(id) if id == "st-3"));
}

#[tokio::test]
async fn a_name_is_given_once_and_an_overwritten_secret_keeps_its_id() {
    let secrets = Place::new().await.open().await;
    let first = named("st-1", "one", &[("A", "1")]);
    secrets.create_named(first.clone(), IfExists::Fail).await.unwrap();
    // The same request again is no second secret.
    secrets.create_named(first, IfExists::Fail).await.unwrap();
    let other = || named("st-2", "one", &[("A", "2")]);
    let refused = secrets.create_named(other(), IfExists::Fail).await;
    assert!(matches!(refused, Err(SecretError::Exists { .. })));
    assert_eq!(secrets.create_named(other(), IfExists::Keep).await.unwrap().record.id, "st-1");
    assert_eq!(opened(&secrets, &["st-1"]), [pair("A", "1")]);
    assert_eq!(secrets.create_named(other(), IfExists::Overwrite).await.unwrap().record.id, "st-1");
    assert_eq!(opened(&secrets, &["st-1"]), [pair("A", "2")]);
    let elsewhere = NewSecret { environment: "dev".to_owned(), ..other() };
    assert_eq!(secrets.create_named(elsewhere, IfExists::Fail).await.unwrap().record.id, "st-2");
}

#[tokio::test]
async fn an_update_sets_and_removes_and_leaves_the_rest() {
    let secrets = Place::new().await.open().await;
    secrets.create_named(named("st-1", "one", &[("A", "1"), ("B", "1")]), IfExists::Fail).await.unwrap();
    secrets.update("st-1", variables(&[("C", "3")]), &["B".to_owned()]).await.unwrap();
    assert_eq!(opened(&secrets, &["st-1"]), [pair("A", "1"), pair("C", "3")]);
    assert_eq!(secrets.find("st-1").unwrap().record.keys, ["A", "C"]);
}

#[tokio::test]
async fn secrets_of_an_app_are_one_for_the_same_variables_and_end_with_it() {
    let place = Place::new().await;
    let secrets = place.open().await;
    let first = secrets.create_anonymous(of_app(&secrets, "ap-1", &[("A", "1")])).await.unwrap();
    let same = secrets.create_anonymous(of_app(&secrets, "ap-1", &[("A", "1")])).await.unwrap();
    let other = secrets.create_anonymous(of_app(&secrets, "ap-1", &[("A", "2")])).await.unwrap();
    assert_eq!(first.record.id, same.record.id);
    assert_ne!(first.record.id, other.record.id);
    // A young one may be on its way into a deployment.
    secrets.prune_app("ap-1", &HashSet::new()).await.unwrap();
    assert!(secrets.find(&first.record.id).is_ok());
    let gone = secrets.create_anonymous(of_app(&secrets, "ap-2", &[("A", "1")])).await.unwrap();
    let again = place.open().await;
    assert!(again.find(&gone.record.id).is_err(), "its app is not there any more");
    again.delete_of_app("ap-1").await.unwrap();
    assert!(again.find(&first.record.id).is_err());
}

#[tokio::test]
async fn without_its_key_nothing_opens_and_nothing_is_sealed_until_it_is_back() {
    let place = Place::new().await;
    place.open().await.create_named(named("st-1", "one", &[("A", "1")]), IfExists::Fail).await.unwrap();
    let key = std::fs::read(place.key_path()).unwrap();
    std::fs::remove_file(place.key_path()).unwrap();

    let secrets = place.open().await;
    let lost = |result: Result<(), SecretError>| matches!(result, Err(SecretError::KeyLost { .. }));
    assert!(lost(secrets.environment(&["st-1".to_owned()]).map(drop)));
    let two = || named("st-2", "two", &[("A", "2")]);
    assert!(lost(secrets.create_named(two(), IfExists::Fail).await.map(drop)));
    assert!(!place.key_path().exists(), "a new key would make the old one look needless");

    std::fs::write(place.key_path(), key).unwrap();
    assert_eq!(opened(&secrets, &["st-1"]), [pair("A", "1")]);
    std::fs::write(place.key_path(), hex::encode([7; 32])).unwrap();
    let other_key = place.open().await.environment(&["st-1".to_owned()]);
    assert!(matches!(other_key, Err(SecretError::Sealed { .. })));
}
