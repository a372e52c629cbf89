//! Names of images: published, looked up, listed.

use homeport_proto::client as pb;
use homeport_proto::record as rec;
use tonic::Status;

use super::missing;
use crate::auth::{Caller, Identity};
use crate::control::Control;

/// Entries of a page when the client names no number.
const PAGE: usize = 100;

impl Control {
    pub(super) async fn image_get_by_tag(
        &self,
        _: &Caller,
        request: pb::ImageGetByTagRequest,
    ) -> Result<pb::ImageGetByTagResponse, Status> {
        let (environment, tag) = self.place(&request.tag, &request.environment_name)?;
        let named = self.registry.image_name(&environment, &tag);
        let last = named.as_ref().and_then(|name| name.revisions.last());
        let image = last.and_then(|last| self.registry.image(&last.image_id));
        let image = image.ok_or_else(|| missing("the published image", &format!("{environment}/{tag}")))?;
        Ok(pb::ImageGetByTagResponse { image_id: image.id.clone() })
    }

    pub(super) async fn image_publish(
        &self,
        caller: &Caller,
        request: pb::ImagePublishRequest,
    ) -> Result<pb::ImagePublishResponse, Status> {
        let (environment, tag) = self.place(&request.tag, &request.environment_name)?;
        let image =
            self.registry.image(&request.image_id).ok_or_else(|| missing("image", &request.image_id))?;
        let published_by = match &caller.identity {
            Identity::User { token_id } => token_id.clone(),
            _ => String::new(),
        };
        let id = self.new_id(caller, "ir", format!("{environment}/{tag}").as_bytes());
        let published_at = self.clock.now();
        let revision =
            rec::ImageRevision { id: id.clone(), image_id: image.id.clone(), published_at, published_by };
        self.registry.name_image(&environment, &tag, revision).await?;
        Ok(pb::ImagePublishResponse { image_id: image.id.clone(), revision_id: id })
    }

    pub(super) async fn image_list_tags(
        &self,
        _: &Caller,
        request: pb::ImageListTagsRequest,
    ) -> Result<pb::ImageListTagsResponse, Status> {
        let environment_name = self.environment(&request.environment_name)?;
        let named = self.registry.image_names(&environment_name);
        let items =
            named.iter().filter(|name| name.tag.starts_with(&request.tag_prefix)).filter_map(|name| {
                let (first, last) = (name.revisions.first()?, name.revisions.last()?);
                Some(pb::ImageListTagsItem {
                    tag: name.tag.clone(),
                    image_id: last.image_id.clone(),
                    revision_id: last.id.clone(),
                    created_at: first.published_at,
                    updated_at: last.published_at,
                    last_published_by: last.published_by.clone(),
                })
            });
        let items = items.filter(|item| request.image_id.is_empty() || item.image_id == request.image_id);
        // Tags are in order, so the last one of a page says where the next begins.
        let after = items.filter(|item| item.tag > request.page_token);
        let (items, next_page_token) = page(after, request.max_objects, |item| item.tag.clone());
        Ok(pb::ImageListTagsResponse { items, next_page_token, environment_name })
    }

    pub(super) async fn image_tag_revisions(
        &self,
        _: &Caller,
        request: pb::ImageTagRevisionsRequest,
    ) -> Result<pb::ImageTagRevisionsResponse, Status> {
        let (environment_name, tag) = self.place(&request.tag, &request.environment_name)?;
        let named = self.registry.image_name(&environment_name, &tag);
        let revisions = named.iter().flat_map(|name| name.revisions.iter().rev());
        let items = revisions.map(|revision| pb::ImageTagRevisionsItem {
            image_id: revision.image_id.clone(),
            revision_id: revision.id.clone(),
            created_at: revision.published_at,
            published_by: revision.published_by.clone(),
        });
        let skipped = request.page_token.parse().unwrap_or(0);
        let (items, more) = page(items.skip(skipped), request.max_objects, |_| String::from("more"));
        let next_page_token =
            if more.is_empty() { String::new() } else { (skipped + items.len()).to_string() };
        Ok(pb::ImageTagRevisionsResponse { items, next_page_token, tag, environment_name })
    }

    pub(super) async fn image_name_delete(
        &self,
        _: &Caller,
        request: pb::ImageNameDeleteRequest,
    ) -> Result<(), Status> {
        let (environment, tag) = self.place(&request.tag, "")?;
        match self.registry.forget_image_name(&environment, &tag).await? {
            true => Ok(()),
            false => Err(missing("the published image", &format!("{environment}/{tag}"))),
        }
    }

    /// The environment and the `name:tag` that `tag` means, which may say the environment itself.
    fn place(&self, tag: &str, environment: &str) -> Result<(String, String), Status> {
        let (environment, tag) = tag.rsplit_once('/').unwrap_or((environment, tag));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        if tag.is_empty() || tag.len() > 256 || !tag.chars().all(plain) {
            return Err(Status::invalid_argument(format!(
                "`{tag}` is no name for an image: write it as name:tag with letters, digits, `-`, `_` and `.`"
            )));
        }
        Ok((self.environment(environment)?, tag.to_owned()))
    }
}

/// The first entries, and how the rest is asked for: empty if there is none.
fn page<T>(items: impl Iterator<Item = T>, most: u32, token: impl Fn(&T) -> String) -> (Vec<T>, String) {
    let most = if most == 0 { PAGE } else { most as usize };
    let mut items = items;
    let taken: Vec<T> = items.by_ref().take(most).collect();
    let next = match (items.next(), taken.last()) {
        (Some(_), Some(last)) => token(last),
        _ => String::new(),
    };
    (taken, next)
}
