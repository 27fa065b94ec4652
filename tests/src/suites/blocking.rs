//! What every blocking pool does.

use dfs_stdx::blocking::Pool;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs the suite on a pool.
pub async fn conformance(pool: Pool) {
    assert_eq!(pool.run(|| 6 * 7).await, 42);
    more_work_than_the_queue_holds_is_all_done_once(&pool).await;
    a_clone_is_the_same_pool(&pool).await;
}

async fn more_work_than_the_queue_holds_is_all_done_once(pool: &Pool) {
    let done = Arc::new(AtomicUsize::new(0));
    let work = (0..1000).map(|i| {
        let done = done.clone();
        pool.run(move || {
            done.fetch_add(1, Ordering::Relaxed);
            i
        })
    });
    let results = futures::future::join_all(work).await;
    assert_eq!(results, (0..1000).collect::<Vec<_>>());
    assert_eq!(done.load(Ordering::Relaxed), 1000);
}

async fn a_clone_is_the_same_pool(pool: &Pool) {
    let clone = pool.clone();
    let name = |pool: Pool| async move {
        pool.run(|| std::thread::current().name().map(str::to_owned))
            .await
    };
    assert_eq!(name(clone).await, name(pool.clone()).await);
}
