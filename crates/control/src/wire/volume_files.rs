//! Files of Volumes outside of containers: listed, read, removed, copied. What is read is the newest version.

use std::sync::Arc;

use homeport_content::{FileContent, Layered, Leaf, LeafKind, Metadata, Seen};
use homeport_gateway::{BLOCK_BYTES, ContentPart, ContentToken};
use homeport_proto::client as pb;
use pb::file_entry::FileType;
use tonic::Status;

use super::Answers;
use super::volume_edit::refused;
use super::volume_path::{Last, Pattern, clean, find, join, nothing_at, place};
use crate::auth::Caller;
use crate::control::Control;
use crate::dialect::Dialect;

/// Entries of one part of a listing.
const PAGE: usize = 1000;
/// Parts of a listing that wait for the client.
const PAGES_AHEAD: usize = 4;
/// Files up to this many bytes are answered within the message.
const IN_MESSAGE: u64 = 4 << 20;
/// Ranges up to this many bytes as well: clients that ask for ranges take nothing else.
const RANGE_IN_MESSAGE: u64 = 16 << 20;

impl Control {
    pub(super) fn volume_list_files(
        &self,
        caller: &Caller,
        request: pb::VolumeListFilesRequest,
    ) -> Result<Answers<pb::VolumeListFilesResponse>, Status> {
        let listing = Listing::new(caller, request.path, request.recursive, request.max_entries);
        Ok(self.list_volume(request.volume_id, listing, |entries| pb::VolumeListFilesResponse { entries }))
    }

    pub(super) fn volume_list_files2(
        &self,
        caller: &Caller,
        request: pb::VolumeListFiles2Request,
    ) -> Result<Answers<pb::VolumeListFiles2Response>, Status> {
        let listing = Listing::new(caller, request.path, request.recursive, request.max_entries);
        Ok(self.list_volume(request.volume_id, listing, |entries| pb::VolumeListFiles2Response { entries }))
    }

    fn list_volume<T: Send + 'static>(
        &self,
        volume_id: String,
        listing: Listing,
        answer: impl Fn(Vec<pb::FileEntry>) -> T + Send + 'static,
    ) -> Answers<T> {
        let (sender, receiver) = tokio::sync::mpsc::channel(PAGES_AHEAD);
        let control = self.clone();
        tokio::spawn(async move {
            let layered = match control.volumes.layered(&volume_id).await {
                Ok(layered) => layered,
                Err(error) => return drop(sender.send(Err(error.into())).await),
            };
            let walked = tokio::task::spawn_blocking(move || {
                // Who went away wants no more pages.
                let give = |page| sender.blocking_send(Ok(answer(page))).is_ok();
                if let Err(status) = listing.list(&layered, give) {
                    let _ = sender.blocking_send(Err(status));
                }
            });
            if let Err(error) = walked.await {
                tracing::error!(%error, "a listing ended badly");
            }
        });
        Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))
    }

    pub(super) async fn volume_get_file(
        &self,
        _: &Caller,
        request: pb::VolumeGetFileRequest,
    ) -> Result<pb::VolumeGetFileResponse, Status> {
        use pb::volume_get_file_response::DataOneof;
        let content = self.file_of_volume(&request.volume_id, &request.path).await?;
        let size = content.size();
        let start = request.start.min(size);
        let end = if request.len == 0 { size } else { start.saturating_add(request.len).min(size) };
        let limit = if request.len == 0 { IN_MESSAGE } else { RANGE_IN_MESSAGE };
        let data = match content {
            FileContent::Inline(bytes) => {
                DataOneof::Data(bytes[start as usize..end as usize].to_vec().into())
            }
            FileContent::Object { digest, .. } if end - start <= limit => {
                let store = Arc::clone(&self.store);
                let read = tokio::task::spawn_blocking(move || {
                    let mut bytes = vec![0; (end - start) as usize];
                    let file = store.open_object(&digest).map_err(super::mount::storage)?;
                    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, start)
                        .map_err(|error| Status::unavailable(format!("cannot read the file: {error}")))?;
                    Ok::<_, Status>(bytes)
                });
                DataOneof::Data(read.await.map_err(|error| Status::unavailable(error.to_string()))??.into())
            }
            FileContent::Object { digest, .. } => {
                let part = ContentPart { digest, start, length: end - start, may_be_cut: false };
                DataOneof::DataBlobId(self.blobs.grant_content(&part).as_str().to_owned())
            }
        };
        Ok(pb::VolumeGetFileResponse { data_oneof: Some(data), size, start, len: end - start })
    }

    pub(super) async fn volume_get_file2(
        &self,
        caller: &Caller,
        request: pb::VolumeGetFile2Request,
    ) -> Result<pb::VolumeGetFile2Response, Status> {
        let content = self.file_of_volume(&request.volume_id, &request.path).await?;
        let size = content.size();
        let start = request.start.min(size);
        let end = if request.len == 0 { size } else { start.saturating_add(request.len).min(size) };
        let base_url = super::blob::base_url(caller);
        let grant = |from: u64, to: u64| -> ContentToken {
            match &content {
                FileContent::Inline(bytes) => self.blobs.grant_bytes(&bytes[from as usize..to as usize]),
                FileContent::Object { digest, .. } => self.blobs.grant_content(&ContentPart {
                    digest: *digest,
                    start: from,
                    length: to - from,
                    may_be_cut: request.client_pads_blocks,
                }),
            }
        };
        let get_urls = blocks(start, end).map(|(from, to)| grant(from, to).url(&base_url)).collect();
        Ok(pb::VolumeGetFile2Response { get_urls, size, start, len: end - start })
    }

    /// The content of the file at a path of a Volume. Links are followed.
    async fn file_of_volume(&self, volume_id: &str, path: &str) -> Result<FileContent, Status> {
        let layered = self.volumes.layered(volume_id).await?;
        match find(&layered, path, Last::Follow)?.1 {
            Seen::Directory(_) => Err(Status::invalid_argument(format!("`{path}` is a directory"))),
            Seen::Leaf { leaf: Leaf { kind: LeafKind::File(content), .. }, .. } => Ok(content.clone()),
            Seen::Leaf { .. } => Err(Status::invalid_argument(format!("`{path}` is not a regular file"))),
        }
    }

    pub(super) async fn volume_remove_file(
        &self,
        caller: &Caller,
        request: pb::VolumeRemoveFileRequest,
    ) -> Result<(), Status> {
        self.remove_from_volume(caller, request.volume_id, request.path, request.recursive).await
    }

    pub(super) async fn volume_remove_file2(
        &self,
        caller: &Caller,
        request: pb::VolumeRemoveFile2Request,
    ) -> Result<(), Status> {
        self.remove_from_volume(caller, request.volume_id, request.path, request.recursive).await
    }

    async fn remove_from_volume(
        &self,
        caller: &Caller,
        volume_id: String,
        path: String,
        recursive: bool,
    ) -> Result<(), Status> {
        self.edit_volume(caller, self.store.hold(), volume_id, "removal", move |layered, edit| {
            let (found, seen) = find(layered, &path, Last::Keep)?;
            if matches!(seen, Seen::Directory(_)) && !recursive {
                return Err(Status::invalid_argument(format!(
                    "`{path}` is a directory; remove it and all that is in it with recursive=True or --recursive"
                )));
            }
            if !found.is_empty() {
                return edit.remove(&found, recursive).map_err(refused);
            }
            let names = edit.list(b"").unwrap_or_default();
            let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
            names.iter().try_for_each(|name| edit.remove(name, true)).map_err(refused)
        })
        .await
    }

    pub(super) async fn volume_copy_files(
        &self,
        caller: &Caller,
        request: pb::VolumeCopyFilesRequest,
    ) -> Result<(), Status> {
        self.copy_in_volume(caller, request.volume_id, request.src_paths, request.dst_path, request.recursive)
            .await
    }

    pub(super) async fn volume_copy_files2(
        &self,
        caller: &Caller,
        request: pb::VolumeCopyFiles2Request,
    ) -> Result<(), Status> {
        self.copy_in_volume(caller, request.volume_id, request.src_paths, request.dst_path, request.recursive)
            .await
    }

    /// As `cp`: into the target if that is a directory, else onto it.
    async fn copy_in_volume(
        &self,
        caller: &Caller,
        volume_id: String,
        sources: Vec<String>,
        target: String,
        recursive: bool,
    ) -> Result<(), Status> {
        if sources.is_empty() {
            return Err(Status::invalid_argument("there is nothing to copy: no source is named"));
        }
        self.edit_volume(caller, self.store.hold(), volume_id, "copy", move |layered, edit| {
            let into = match find(layered, &target, Last::Follow) {
                Ok((path, Seen::Directory(_))) => Some(path),
                _ if sources.len() > 1 || target.ends_with('/') => {
                    return Err(Status::invalid_argument(format!(
                        "`{target}` is not a directory in the Volume"
                    )));
                }
                _ => None,
            };
            for source in &sources {
                let last = if recursive { Last::Keep } else { Last::Follow };
                let (from, seen) = find(layered, source, last)?;
                if matches!(seen, Seen::Directory(_)) && !recursive {
                    return Err(Status::invalid_argument(format!(
                        "`{source}` is a directory; only a recursive copy takes directories"
                    )));
                }
                let to = match &into {
                    Some(directory) => {
                        let cleaned = clean(source)?;
                        let name = cleaned.rsplit('/').next().filter(|name| !name.is_empty());
                        let name = name.ok_or_else(|| {
                            Status::invalid_argument("the root of the Volume cannot be copied into itself")
                        })?;
                        join(directory, name.as_bytes())
                    }
                    None => place(layered, &target)?,
                };
                if from == to {
                    return Err(Status::invalid_argument(format!(
                        "`{source}` and its copy would be the same file"
                    )));
                }
                edit.copy(&from, &to, recursive).map_err(refused)?;
            }
            Ok(())
        })
        .await
    }
}

/// The blocks that a range of a file touches, each cut to the range.
fn blocks(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let first = start / BLOCK_BYTES;
    let last = if start < end { end.div_ceil(BLOCK_BYTES) } else { first };
    (first..last).map(move |block| {
        let from = block * BLOCK_BYTES;
        (from.max(start), from.saturating_add(BLOCK_BYTES).min(end))
    })
}

/// An entry with its path.
type Listed<'a> = (Vec<u8>, Seen<'a>);

/// What is to be listed.
struct Listing {
    path: String,
    recursive: bool,
    most: usize,
    dialect: Dialect,
}

impl Listing {
    fn new(caller: &Caller, path: String, recursive: bool, most: Option<u32>) -> Listing {
        let most = most.filter(|most| *most > 0).map_or(usize::MAX, |most| most as usize);
        Listing { path, recursive, most, dialect: Dialect::of(&caller.client_version) }
    }

    /// Gives the entries in pages until all are given or `give` wants no more.
    fn list(
        &self,
        layered: &Layered,
        mut give: impl FnMut(Vec<pb::FileEntry>) -> bool,
    ) -> Result<(), Status> {
        let mut entries: Box<dyn Iterator<Item = Listed<'_>> + '_> =
            match find(layered, &self.path, Last::Keep) {
                Ok((path, Seen::Directory(_))) if self.recursive => Box::new(layered.walk(&path)),
                Ok((path, Seen::Directory(_))) => {
                    let entries = layered.list(&path).unwrap_or_default();
                    Box::new(entries.into_iter().map(move |(name, seen)| (join(&path, &name), seen)))
                }
                Ok(leaf) => Box::new(std::iter::once(leaf)),
                Err(status) => Box::new(self.matching(layered)?.ok_or(status)?.into_iter()),
            };
        let mut left = self.most;
        loop {
            let page: Vec<_> =
                entries.by_ref().take(PAGE.min(left)).map(|(path, seen)| self.entry(&path, seen)).collect();
            left -= page.len();
            let done = page.len() < PAGE;
            if !page.is_empty() && !give(page) || done {
                return Ok(());
            }
        }
    }

    /// What fits the path, if it is a pattern.
    fn matching<'a>(&self, layered: &'a Layered) -> Result<Option<Vec<Listed<'a>>>, Status> {
        let Some(pattern) = Pattern::of(&self.path)? else { return Ok(None) };
        let (base, _) = find(layered, &pattern.base, Last::Keep)?;
        let all = layered.walk(&base);
        let found: Vec<_> = all.filter(|(path, _)| pattern.fits(path, self.recursive)).collect();
        if found.is_empty() { Err(nothing_at(&self.path)) } else { Ok(Some(found)) }
    }

    fn entry(&self, path: &[u8], seen: Seen<'_>) -> pb::FileEntry {
        let (kind, size) = match seen {
            Seen::Directory(_) => (FileType::Directory, 0),
            Seen::Leaf { leaf, .. } => match &leaf.kind {
                LeafKind::File(content) => (FileType::File, content.size()),
                LeafKind::Symlink(target) => (FileType::Symlink, target.len() as u64),
                LeafKind::Fifo if self.dialect.lists_fifos => (FileType::Fifo, 0),
                LeafKind::Fifo | LeafKind::CharDevice(_) | LeafKind::BlockDevice(_) => {
                    (FileType::Unspecified, 0)
                }
            },
        };
        let Metadata { mtime, .. } = seen.metadata();
        pb::FileEntry {
            path: String::from_utf8_lossy(path).into_owned(),
            r#type: kind.into(),
            mtime: u64::try_from(mtime.seconds).unwrap_or(0),
            size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_by_the_blocks_that_it_touches() {
        let list = |start, end| blocks(start, end).collect::<Vec<_>>();
        const B: u64 = BLOCK_BYTES;
        assert_eq!(list(0, 0), []);
        assert_eq!(list(B, B), []);
        assert_eq!(list(0, 1), [(0, 1)]);
        assert_eq!(list(0, B), [(0, B)]);
        assert_eq!(list(0, B + 1), [(0, B), (B, B + 1)]);
        assert_eq!(list(5, 2 * B + 3), [(5, B), (B, 2 * B), (2 * B, 2 * B + 3)]);
        assert_eq!(list(B - 1, B), [(B - 1, B)]);
    }
}
