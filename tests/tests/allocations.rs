//! Once warm, a loader allocates nothing per clip: its allocations per batch do not grow with the
//! clips. A binary of its own, for its global allocator.

use pipeline::loader::batch::Form;
use pipeline::loader::{Loader, LoaderOptions};
use pipeline::sampling::mask::MaskRule;
use pipeline::transform::TargetForm;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use tests::{TestClip, loader_options, shard_sources, write_shards};

/// The system's allocator, counted.
struct Counted;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator needs.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those that the system's allocator needs.
        unsafe { System.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are those that the system's allocator needs.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Allocations for each batch of `batch_size` clips, of a loader that is warm.
fn allocations_of_a_batch(options: LoaderOptions) -> u64 {
    let dir = tempfile::tempdir().expect("a folder");
    let clips: Vec<TestClip> = (0..32)
        .map(|seed| TestClip::moving(seed, 8, 50, 38))
        .collect();
    write_shards(dir.path(), &clips);
    let mut loader = Loader::new(shard_sources(dir.path()), options).expect("a loader");
    let mut load = |batches: usize| {
        (0..batches).for_each(|_| drop(loader.next().expect("endless").expect("a batch")))
    };
    load(64);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    load(50);
    (ALLOCATIONS.load(Ordering::Relaxed) - before) / 50
}

#[test]
fn a_warm_loader_allocates_for_batches_and_not_for_clips() {
    let patches = [
        TargetForm::Pixels { slices: 1 },
        TargetForm::Hog { slices: 1 },
    ]
    .map(|target| Form::Patches { target });
    for form in [Form::Clips].into_iter().chain(patches) {
        let of = |batch_size: usize| {
            let mut options = LoaderOptions {
                batch_size,
                prefetch: 2,
                ..loader_options(2)
            };
            options.format.form = form;
            if form != Form::Clips {
                options.format.mask_rule = options.format.mask_rule.map(|rule| MaskRule {
                    decoder_keep: 0.5,
                    ..rule
                });
            }
            allocations_of_a_batch(options)
        };
        let (few, many) = (of(4), of(32));
        println!("{form:?}: {few} allocations for a batch of 4 clips, {many} for one of 32");
        // 28 more clips, and hardly anything more: lists of samples grow by doubling.
        assert!(
            many < few + 10,
            "{form:?}: {few} allocations for a batch of 4 clips, {many} for one of 32"
        );
    }
}
