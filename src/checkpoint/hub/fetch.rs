//! A model from the hub into the cache.

use std::{collections::BTreeSet, thread};

use super::{
    super::{CHAT_TEMPLATES, CONFIG, OPTIONAL, is_part, json::shortened, tensors::shard_names},
    HubError, HubModel, HubSettings, Progress, Snapshot,
    cache::ModelCache,
    client::Client,
    transfer::{Transfer, asked_for},
};

/// Has `cache` hold `model` as the hub has it now; only what it lacks is fetched.
pub(super) fn fetch(
    model: &HubModel,
    settings: &HubSettings,
    cache: &ModelCache,
    progress: &mut dyn Progress,
) -> Result<Snapshot, HubError> {
    let client = Client::new(settings, model)?;
    let info = client.info().or_else(|error| match asked_for(&error) {
        Some(pause) => {
            progress.wait(pause);
            thread::sleep(pause);
            client.info()
        }
        None => Err(error),
    })?;
    let listed: BTreeSet<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
    if let Some(name) = listed.iter().find(|name| leads_out(name)) {
        return Err(HubError::FileName { id: model.id().to_owned(), name: shortened(name) });
    }
    let revision = info.sha;
    let lacking = |lacks: &str| HubError::NoCheckpoint {
        id: model.id().to_owned(),
        revision: revision.clone(),
        lacks: lacks.to_owned(),
    };
    if !listed.contains(CONFIG) {
        return Err(lacking(CONFIG));
    }
    let folder = cache.snapshot(&revision);
    let transfer = Transfer { settings, client: &client, cache, commit: &revision };
    let mut fetch = |file: &str| {
        if folder.join(file).is_file() { Ok(()) } else { transfer.fetch(file, progress) }
    };

    for file in [CONFIG].into_iter().chain(OPTIONAL).filter(|file| listed.contains(file)) {
        fetch(file)?;
    }
    for template in listed.iter().filter(|name| name.starts_with(CHAT_TEMPLATES) && is_part(name)) {
        fetch(template)?;
    }
    // Whatever an index says: the files are the model.
    let shards = shard_names(listed.iter().copied().filter(|name| !name.contains(['/', '\\', ':'])));
    if shards.is_empty() {
        return Err(lacking("model*.safetensors"));
    }
    for shard in shards {
        fetch(shard)?;
    }
    if model.revision() != revision {
        cache.set_ref(model.revision(), &revision)?;
    }
    Ok(Snapshot { folder, revision })
}

/// Whether `name` is not that of a file within the repository. No git repository has such names.
fn leads_out(name: &str) -> bool {
    let bytes = name.as_bytes();
    let drive = bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b':';
    drive
        || name.is_empty()
        || name.starts_with(['/', '\\'])
        || name.contains(char::is_control)
        || name.split(['/', '\\']).any(|part| part == "..")
}
