//! A file that was put into a store and that nothing names yet.

use std::sync::Arc;

use nexus_flight_catalog::Result;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::Store;

/// A file that is there, or may be: dropped, it is removed, unless it was kept.
#[derive(Debug)]
pub(crate) struct Made {
    store: Arc<Store>,
    path: Path,
    is_kept: bool,
}

impl Made {
    /// The file at this place, which only this statement knows.
    pub(crate) fn new(store: &Arc<Store>, path: Path) -> Self {
        Self { store: Arc::clone(store), path, is_kept: false }
    }

    /// Whether it is there still. Errors: those of the store.
    pub(crate) async fn is_there(&self) -> Result<bool> {
        match self.store.objects().head(&self.path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(cause) => Err(self.store.error(&cause, &self.path)),
        }
    }

    /// Something names it now, or may.
    pub(crate) fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // A statement ends where a runtime is; the process may be ending elsewhere.
        if let (false, Ok(runtime)) = (self.is_kept, tokio::runtime::Handle::try_current()) {
            let (store, path) = (Arc::clone(&self.store), self.path.clone());
            runtime.spawn(async move {
                match store.objects().delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(cause) => {
                        let error = store.write_error(&cause, &path);
                        tracing::warn!(%error, "a file that nothing names could not be removed");
                    }
                }
            });
        }
    }
}
