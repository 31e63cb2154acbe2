//! What a statement holds for as long as any of its work goes on: also a call that nobody waits for any more and that does not pause,
//! in whichever of its tasks. Who sends such statements has their own slots in use, and nobody else's.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::runtime::JoinSetTracer;
use futures::FutureExt;
use futures::future::BoxFuture;

tokio::task_local! {
    static RUNNING: Arc<Running>;
}

/// A statement that runs.
#[derive(Default)]
pub struct Running {
    held: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Running {
    /// A piece of work as one of a statement that holds `what` until the last of its tasks has ended.
    pub fn with<T>(what: impl Any + Send, work: impl Future<Output = T>) -> impl Future<Output = T> {
        RUNNING.scope(Arc::new(Self { held: Mutex::new(vec![Box::new(what)]) }), work)
    }

    /// A piece of work within the one that runs here, whose things it holds too: what it holds beside them is given back by the time
    /// that it has ended, if none of its tasks goes on.
    pub fn within<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
        Self::with(RUNNING.try_with(Arc::clone).ok(), work)
    }
}

/// Has the statement that runs here hold something as well; nothing holds it where none does.
pub fn hold(what: impl Any + Send) {
    let _ = RUNNING.try_with(|running| {
        running.held.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(what));
    });
}

/// Makes the tasks that DataFusion starts for a statement tasks of that statement.
pub struct Tasks;

impl JoinSetTracer for Tasks {
    fn trace_future(&self, task: BoxFuture<'static, Box<dyn Any + Send>>) -> BoxFuture<'static, Box<dyn Any + Send>> {
        match RUNNING.try_with(Arc::clone) {
            Ok(running) => RUNNING.scope(running, task).boxed(),
            Err(_) => task,
        }
    }

    fn trace_block(
        &self,
        task: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        match RUNNING.try_with(Arc::clone) {
            Ok(running) => Box::new(move || RUNNING.sync_scope(running, task)),
            Err(_) => task,
        }
    }
}
