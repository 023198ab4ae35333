//! Threads for work that nothing else on the node may hold up.
//!
//! Most of the node shares one runtime, on which a turn of the shard may wait for the disk.
//! Administrators and probes want to know then what holds the node up, and what they ask for, such
//! as a list of all queues, must not hold up messages: they are answered by a thread of their own.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// A thread that runs tasks. When it is dropped, they end.
pub(crate) struct OwnThread {
    /// There until dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl OwnThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(name: &'static str) -> io::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()?;
        let handle = runtime.handle().clone();
        Ok(Self { runtime: Some(runtime), handle })
    }

    /// Where to spawn tasks that belong to it.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs a task there and waits for it. What the task opens, such as a socket, is served by this
    /// thread from then on.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let running: JoinHandle<T> = self.handle.spawn(task);
        match running.await {
            Ok(done) => done,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The thread ends only when this is dropped.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last owner may be a task, which must not wait for others.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OwnThread;

    #[tokio::test]
    async fn a_task_runs_although_the_one_that_waits_for_it_has_the_only_worker() {
        let thread = OwnThread::start("test").expect("a thread");
        let name = thread.run(async { std::thread::current().name().map(str::to_owned) }).await;
        assert_eq!(name.as_deref(), Some("test"));
    }

    #[tokio::test]
    async fn tasks_go_on_while_the_runtime_of_the_others_is_held_up() {
        let thread = OwnThread::start("test").expect("a thread");
        let (done, wait) = std::sync::mpsc::channel();
        thread.handle().spawn(async move {
            tokio::task::yield_now().await;
            done.send(()).expect("the test waits");
        });
        // This blocks the only worker of the test's own runtime.
        wait.recv_timeout(std::time::Duration::from_secs(30)).expect("the task ran");
    }
}
