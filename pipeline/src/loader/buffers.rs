//! Reused memory for batches. The loader's `unsafe` code is here.
//!
//! ```text
//! Ring::take ──> BatchMut (threads write, each its own slots) ──> Buffer (read)
//!   ^                                                                │
//!   └─────────────── dropped, or lent to a copy until that ends ─────┘
//! ```
//!
//! Fresh memory costs a page fault for every 4 KiB that is written to it, which is more than all
//! other work on a clip. A buffer that a device is still copying from returns only when the copy is
//! done, in whatever order copies end.

use crossbeam_channel::{Receiver, Sender, unbounded};
#[cfg(feature = "cuda")]
use cudarc::driver::{CudaContext, PinnedHostSlice};
use memmap2::MmapMut;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Parts of a buffer begin at multiples of this many bytes, the length of a cache line.
const ALIGNMENT: usize = 64;

/// How a buffer is divided: into parts, one after the other, and each part into the same number of
/// slots of one size. A part is a tensor, a slot one clip of it.
///
/// ```
/// use pipeline::loader::buffers::Layout;
///
/// let layout = Layout::new(3, &[100, 7]);
/// assert_eq!(layout.range(0, 3), 0..300);
/// // Parts are aligned to 64 bytes.
/// assert_eq!(layout.range(1, 2), 320..334);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    slots: usize,
    /// Offset of each part, and the bytes of its slots.
    parts: Vec<(usize, usize)>,
    bytes: usize,
}

impl Layout {
    /// A layout with `slots` slots in each part, and a part for each of `slot_bytes`.
    pub fn new(slots: usize, slot_bytes: &[usize]) -> Self {
        let mut parts = Vec::with_capacity(slot_bytes.len());
        let mut bytes = 0usize;
        for &slot_bytes in slot_bytes {
            parts.push((bytes, slot_bytes));
            bytes = (bytes + slots * slot_bytes).next_multiple_of(ALIGNMENT);
        }
        Self {
            slots,
            parts,
            bytes,
        }
    }

    /// Slots of each part.
    pub const fn slots(&self) -> usize {
        self.slots
    }

    /// Bytes of a whole buffer.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The byte range of the first `slots` slots of part `part` in the buffer.
    ///
    /// # Panics
    /// When there is no such part, or there are fewer slots.
    pub fn range(&self, part: usize, slots: usize) -> Range<usize> {
        assert!(slots <= self.slots, "{slots} slots of {}", self.slots);
        let (start, slot_bytes) = self.parts[part];
        start..start + slots * slot_bytes
    }

    fn slot(&self, part: usize, slot: usize) -> Range<usize> {
        let (start, slot_bytes) = self.parts[part];
        start + slot * slot_bytes..start + (slot + 1) * slot_bytes
    }
}

/// The kind of memory that buffers are in.
#[derive(Debug, Clone, Default)]
pub enum MemoryKind {
    /// System memory.
    #[default]
    Host,
    /// Page-locked system memory that a GPU of this context copies from by DMA.
    #[cfg(feature = "cuda")]
    Pinned(Arc<CudaContext>),
}

/// Page-aligned bytes.
#[derive(Debug)]
enum Memory {
    Host(MmapMut),
    /// With the address of its bytes.
    #[cfg(feature = "cuda")]
    Pinned(PinnedHostSlice<u8>, *mut u8),
}

// SAFETY: the address is that of the slice, which moves along; it is read and written only through
// references to this.
#[cfg(feature = "cuda")]
unsafe impl Send for Memory {}
// SAFETY: as above.
#[cfg(feature = "cuda")]
unsafe impl Sync for Memory {}

impl Memory {
    /// Allocates memory. Pages of the system's come when they are first written to, by the threads
    /// that fill the buffer: all of them at once would hold up the user.
    fn allocate(kind: &MemoryKind, bytes: usize) -> std::io::Result<Self> {
        let bytes = bytes.max(1);
        Ok(match kind {
            MemoryKind::Host => {
                let memory = MmapMut::map_anon(bytes)?;
                // Fewer, larger pages where the system has them; advice only.
                #[cfg(target_os = "linux")]
                let _ = memory.advise(memmap2::Advice::HugePage);
                Self::Host(memory)
            }
            #[cfg(feature = "cuda")]
            MemoryKind::Pinned(context) => {
                // No flags: write-combined memory is slow to read, and bad clips are taken out by
                // reading. SAFETY: it is filled with zeros before anything reads it.
                let mut memory = unsafe { context.alloc_pinned_with_flags(bytes, 0) }
                    .map_err(std::io::Error::other)?;
                let start = memory.as_mut_ptr().map_err(std::io::Error::other)?;
                let mut memory = Self::Pinned(memory, start);
                memory.bytes_mut().fill(0);
                memory
            }
        })
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Host(memory) => memory,
            // SAFETY: the slice has this many bytes and lives as long as `self`. A device only ever
            // reads them. (The slice's own accessors would wait for that.)
            #[cfg(feature = "cuda")]
            Self::Pinned(memory, start) => unsafe {
                std::slice::from_raw_parts(*start, memory.len())
            },
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Host(memory) => memory,
            // SAFETY: the slice has this many bytes and lives as long as `self`, and no device
            // reads them: a buffer that is lent to a copy is not in the ring.
            #[cfg(feature = "cuda")]
            Self::Pinned(memory, start) => unsafe {
                std::slice::from_raw_parts_mut(*start, memory.len())
            },
        }
    }
}

/// A copy to a device that may still be reading a buffer.
pub trait Copying: Send {
    /// Whether it has ended.
    fn is_done(&self) -> bool;

    /// Returns when it has ended.
    fn wait(&self);
}

/// A pool of buffers of one layout.
#[derive(Debug, Clone)]
pub struct Ring {
    shared: Arc<Shared>,
    free: Receiver<Memory>,
}

struct Shared {
    layout: Layout,
    kind: MemoryKind,
    /// How many buffers are made before a copy is waited for.
    limit: usize,
    back: Sender<Memory>,
    /// Buffers that are copied from, and how many were made in all.
    copied: Mutex<Copied>,
}

#[derive(Default)]
struct Copied {
    memories: Vec<(Memory, Box<dyn Copying>)>,
    made: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Shared")
            .field("layout", &self.layout)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn copied(&self) -> MutexGuard<'_, Copied> {
        // Its contents are consistent at every moment, also after a panic.
        self.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// A ring of `limit` buffers of `layout`, each made when it is first needed. More are made only
    /// if the user keeps them.
    pub fn new(layout: Layout, limit: usize, kind: MemoryKind) -> Self {
        let (back, free) = unbounded();
        Self {
            shared: Arc::new(Shared {
                layout,
                kind,
                limit,
                back,
                copied: Mutex::default(),
            }),
            free,
        }
    }

    /// How its buffers are divided.
    pub fn layout(&self) -> &Layout {
        &self.shared.layout
    }

    /// Takes a buffer to fill; its contents are those of its last use. When `limit` buffers are
    /// made and some are lent to copies, waits for a copy to end. Does not wait for buffers that
    /// the user keeps.
    ///
    /// # Errors
    /// When the system has no memory left.
    pub fn take(&self) -> std::io::Result<BatchMut> {
        let memory = match self.free.try_recv() {
            Ok(memory) => memory,
            Err(_) => self.reclaim_or_make()?,
        };
        Ok(BatchMut::new(memory, Arc::clone(&self.shared)))
    }

    fn reclaim_or_make(&self) -> std::io::Result<Memory> {
        let mut copied = self.shared.copied();
        // Copies need not end in the order in which they began.
        if let Some(done) = copied.memories.iter().position(|(_, copy)| copy.is_done()) {
            return Ok(copied.memories.swap_remove(done).0);
        }
        if copied.made < self.shared.limit || copied.memories.is_empty() {
            let memory = Memory::allocate(&self.shared.kind, self.shared.layout.bytes)?;
            copied.made += 1;
            return Ok(memory);
        }
        let (memory, copy) = copied.memories.remove(0);
        drop(copied);
        copy.wait();
        Ok(memory)
    }
}

/// A buffer whose slots are written by several threads.
pub struct BatchMut {
    memory: Memory,
    /// Where its bytes begin.
    start: *mut u8,
    taken: Vec<AtomicBool>,
    ring: Arc<Shared>,
}

// SAFETY: `start` points into `memory`, which moves along and whose bytes stay where they are; they
// are given out slot by slot, once each.
unsafe impl Send for BatchMut {}
// SAFETY: the only access through a shared reference is `slot`, which gives disjoint bytes to each
// caller.
unsafe impl Sync for BatchMut {}

impl BatchMut {
    fn new(mut memory: Memory, ring: Arc<Shared>) -> Self {
        let start = memory.bytes_mut().as_mut_ptr();
        let slots = ring.layout.slots;
        Self {
            memory,
            start,
            taken: (0..slots).map(|_| AtomicBool::new(false)).collect(),
            ring,
        }
    }

    /// The bytes of slot `slot` in each of the first `N` parts; `None` after the first call for
    /// this slot.
    ///
    /// # Panics
    /// When there is no such slot, or there are fewer parts.
    #[expect(
        clippy::mut_from_ref,
        reason = "the bytes of a slot are given out once"
    )]
    pub fn slot<const N: usize>(&self, slot: usize) -> Option<[&mut [u8]; N]> {
        if self.taken[slot].swap(true, Ordering::Relaxed) {
            return None;
        }
        let layout = &self.ring.layout;
        assert!(
            N <= layout.parts.len(),
            "{N} parts of {}",
            layout.parts.len()
        );
        Some(std::array::from_fn(|part| {
            let range = layout.slot(part, slot);
            assert!(range.end <= layout.bytes, "a slot lies in its buffer");
            // SAFETY: the range lies in the buffer, whose memory lives as long as `self`. Slots do
            // not overlap, nor do parts; this slot was not given out before, and while it is,
            // nothing else refers to its bytes: `finish` takes `self`.
            unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
        }))
    }

    /// Ends writing.
    pub fn finish(self) -> Buffer {
        let slots = self.ring.layout.slots;
        Buffer {
            memory: Some(self.memory),
            slots,
            ring: self.ring,
        }
    }
}

/// A filled buffer. It returns to its ring when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    /// `None` only while it is dropped.
    memory: Option<Memory>,
    /// Slots in use, from the first on.
    slots: usize,
    ring: Arc<Shared>,
}

impl Buffer {
    /// Slots in use.
    pub const fn slots(&self) -> usize {
        self.slots
    }

    /// The bytes of part `part`.
    pub fn part(&self, part: usize) -> &[u8] {
        &self.bytes()[self.ring.layout.range(part, self.slots)]
    }

    /// The bytes of part `part`, to change in place.
    pub fn part_mut(&mut self, part: usize) -> &mut [u8] {
        let range = self.ring.layout.range(part, self.slots);
        let bytes = self.memory.as_mut().map_or(&mut [][..], Memory::bytes_mut);
        &mut bytes[range]
    }

    /// The bytes of all parts, and what lies between them.
    pub fn bytes(&self) -> &[u8] {
        self.memory.as_ref().map_or(&[], Memory::bytes)
    }

    /// How it is divided.
    pub fn layout(&self) -> &Layout {
        &self.ring.layout
    }

    /// The page-locked memory of the buffer, if it is such. A caller that starts a copy from it
    /// must lend it to this copy ([`Self::lend`]).
    #[cfg(feature = "cuda")]
    pub fn pinned(&self) -> Option<&PinnedHostSlice<u8>> {
        match &self.memory {
            Some(Memory::Pinned(memory, _)) => Some(memory),
            _ => None,
        }
    }

    /// Keeps only the first `slots` slots.
    pub fn truncate(&mut self, slots: usize) {
        self.slots = self.slots.min(slots);
    }

    /// Removes slot `slot` from all parts; those after it move up.
    pub fn remove(&mut self, slot: usize) {
        let layout = &self.ring.layout;
        let bytes = self.memory.as_mut().map_or(&mut [][..], Memory::bytes_mut);
        for part in 0..layout.parts.len() {
            let from = layout.slot(part, slot);
            bytes.copy_within(from.end..layout.range(part, self.slots).end, from.start);
        }
        self.slots -= 1;
    }

    /// Returns the buffer to its ring when `copy`, which reads from it, has ended.
    pub fn lend(mut self, copy: Box<dyn Copying>) {
        if let Some(memory) = self.memory.take() {
            self.ring.copied().memories.push((memory, copy));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            // If the ring is dropped, so is the buffer.
            let _ = self.ring.back.send(memory);
        }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // Memory must not be freed while it is read.
        self.memories.iter().for_each(|(_, copy)| copy.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::order::{Purpose, stream};
    use rand::RngExt;
    use std::collections::VecDeque;
    use std::sync::Condvar;

    fn ring(limit: usize) -> Ring {
        // Odd sizes: a part begins on a line of the cache all the same.
        Ring::new(Layout::new(3, &[100, 7]), limit, MemoryKind::Host)
    }

    #[test]
    fn parts_are_aligned_and_slots_lie_side_by_side() {
        let layout = Layout::new(3, &[100, 7]);
        assert_eq!(
            (layout.range(0, 3), layout.range(1, 2), layout.bytes()),
            (0..300, 320..334, 384)
        );
        let batch = ring(1).take().expect("memory");
        assert_eq!(batch.start as usize % 4096, 0, "page-aligned");
        for slot in 0..3 {
            let [first, second] = batch.slot(slot).expect("not given out yet");
            first.fill(slot as u8 + 1);
            second.fill(slot as u8 + 11);
            assert!(batch.slot::<2>(slot).is_none(), "a slot is given out once");
        }
        let mut buffer = batch.finish();
        assert_eq!(buffer.part(0), [[1; 100], [2; 100], [3; 100]].concat());
        assert_eq!(buffer.part(1), [[11; 7], [12; 7], [13; 7]].concat());
        buffer.remove(1);
        assert_eq!(
            (buffer.part(0), buffer.part(1)),
            (
                [[1; 100], [3; 100]].concat().as_slice(),
                [[11; 7], [13; 7]].concat().as_slice()
            )
        );
        buffer.remove(1);
        assert_eq!((buffer.slots(), buffer.part(1)), (1, [11; 7].as_slice()));
    }

    #[test]
    fn a_buffer_comes_back_whole_and_no_more_are_made_than_are_out() {
        let ring = ring(2);
        let mut first = ring.take().expect("memory").finish();
        let second = ring.take().expect("memory").finish();
        let places = [first.bytes().as_ptr(), second.bytes().as_ptr()];
        first.remove(0);
        drop((first, second));
        for _ in 0..3 {
            let again = [ring.take(), ring.take()].map(|batch| batch.expect("memory").finish());
            assert_eq!(
                again.each_ref().map(|buffer| buffer.bytes().as_ptr()),
                places,
                "the same memory"
            );
            assert_eq!(again[0].slots(), 3, "all slots count again");
        }
    }

    /// Stands in for a device: copies end when the test says so.
    #[derive(Clone, Default)]
    struct Late(Arc<(Mutex<bool>, Condvar)>);

    impl Late {
        fn end(&self) {
            *self.0.0.lock().expect("whole") = true;
            self.0.1.notify_all();
        }
    }

    impl Copying for Late {
        fn is_done(&self) -> bool {
            *self.0.0.lock().expect("whole")
        }

        fn wait(&self) {
            drop(
                self.0
                    .1
                    .wait_while(self.0.0.lock().expect("whole"), |done| !*done)
                    .expect("whole"),
            );
        }
    }

    /// Fill, upload, recycle, with copies that end late and out of step: at the end of each copy
    /// its buffer must hold what it held at the copy's start.
    #[test]
    fn a_buffer_is_not_filled_again_before_its_copy_has_ended() {
        let (ring, mut rng) = (ring(4), stream(Purpose::Augment, 0, 0, 0));
        let mut copies: VecDeque<(Late, usize, u8)> = VecDeque::new();
        for round in 0..500u32 {
            // With all four lent, the next one is that of a copy that has ended: end some, not in
            // the order of their beginning.
            while copies.len() == 4 || (!copies.is_empty() && rng.random_bool(0.4)) {
                let (copy, place, value) = copies
                    .remove(rng.random_range(0..copies.len()))
                    .expect("one of them");
                // What the device reads at its very end.
                let state = ring.shared.copied();
                let (memory, _) = state
                    .memories
                    .iter()
                    .find(|(memory, _)| memory.bytes().as_ptr() as usize == place)
                    .expect("still lent");
                assert!(
                    memory.bytes()[..300].iter().all(|&byte| byte == value),
                    "round {round}: the buffer was written to while it was read"
                );
                drop(state);
                copy.end();
            }
            let batch = ring.take().expect("memory");
            let value = rng.random();
            for slot in 0..3 {
                let [first] = batch.slot(slot).expect("not given out yet");
                first.fill(value);
            }
            let (buffer, copy) = (batch.finish(), Late::default());
            copies.push_back((copy.clone(), buffer.bytes().as_ptr() as usize, value));
            buffer.lend(Box::new(copy));
        }
        assert!(ring.shared.copied().made <= 4, "at most four were made");
        copies.iter().for_each(|(copy, ..)| copy.end());
    }

    #[test]
    fn a_ring_with_all_buffers_lent_waits_for_a_copy_and_so_does_its_end() {
        let ring = ring(1);
        for _ in 0..2 {
            let copy = Late::default();
            ring.take()
                .expect("memory")
                .finish()
                .lend(Box::new(copy.clone()));
            let waiting = std::thread::spawn({
                let ring = ring.clone();
                move || drop(ring.take().expect("memory").finish())
            });
            assert!(!copy.is_done());
            copy.end();
            waiting.join().expect("the buffer came");
        }
        let copy = Late::default();
        ring.take()
            .expect("memory")
            .finish()
            .lend(Box::new(copy.clone()));
        let ending = std::thread::spawn(move || drop(ring));
        copy.end();
        ending.join().expect("the copy has ended");
    }
}
