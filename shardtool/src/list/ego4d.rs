//! Entries of Ego4D.

use super::nested::Reader;
use super::tables::whole_file;
use super::{Bound, Cut, Form};
use serde_json::Value;

/// The keys of times in a video, and in a clip of it.
struct Keys {
    /// Start in the video.
    start: &'static str,
    /// End in the video.
    end: &'static str,
    /// Start in the clip.
    clip_start: &'static str,
    /// End in the clip.
    clip_end: &'static str,
}

/// Start and end in seconds.
type Times = Option<(f64, f64)>;

impl Reader<'_> {
    /// Reads the videos of Ego4D's moments, or of its actions.
    pub fn videos(&mut self, videos: &[Value]) -> anyhow::Result<Form> {
        let mut form = None;
        for video in videos {
            let uid = self.text(video, "video_uid")?;
            let split = video.get("split").and_then(Value::as_str);
            if let Some(Value::Array(clips)) = video.get("clips") {
                form = Some(Form::Ego4dMoments);
                for clip in clips {
                    self.moments(&uid, split, clip)?;
                }
            } else if let Some(Value::Array(intervals)) = video.get("annotated_intervals") {
                form = Some(Form::Ego4dActions);
                for interval in intervals {
                    self.actions(&uid, interval)?;
                }
            } else {
                return Err(self.unknown());
            }
        }
        form.ok_or_else(|| self.unknown())
    }

    /// Reads the moments in one clip. Clips for testing have none.
    fn moments(&mut self, uid: &str, split: Option<&str>, clip: &Value) -> anyhow::Result<()> {
        let clip_uid = self.text(clip, "clip_uid")?;
        let Some(annotations) = clip.get("annotations").and_then(Value::as_array) else {
            if clip.get("persons").is_some() {
                return Err(self.unknown());
            }
            self.number += 1;
            let times = self.times(clip, "video_start_sec", "video_end_sec")?;
            let cut = Some(whole_file(clip_uid.clone()));
            self.push(uid, times, None, split, cut, Some(clip_uid))?;
            return Ok(());
        };
        for annotation in annotations {
            let Some(labels) = annotation.get("labels").and_then(Value::as_array) else {
                return Err(self.unknown());
            };
            for moment in labels {
                self.number += 1;
                if moment.get("primary") == Some(&Value::Bool(false)) {
                    self.skipped += 1;
                    continue;
                }
                let keys = Keys {
                    start: "video_start_time",
                    end: "video_end_time",
                    clip_start: "start_time",
                    clip_end: "end_time",
                };
                let label = self.label(moment, "label");
                let (times, cut) = self.in_clip(moment, &clip_uid, &keys)?;
                self.push(uid, times, label, split, cut, Some(clip_uid.clone()))?;
            }
        }
        Ok(())
    }

    /// Reads the actions in one interval.
    fn actions(&mut self, uid: &str, interval: &Value) -> anyhow::Result<()> {
        let clip_uid = interval.get("clip_uid").and_then(Value::as_str);
        let actions = interval.get("narrated_actions").and_then(Value::as_array);
        for action in actions.into_iter().flatten() {
            self.number += 1;
            let is = |key: &str, value: bool| action.get(key) == Some(&Value::Bool(value));
            if is("is_rejected", true)
                || is("is_invalid_annotation", true)
                || is("is_valid_action", false)
            {
                self.skipped += 1;
                continue;
            }
            let keys = Keys {
                start: "start_sec",
                end: "end_sec",
                clip_start: "clip_start_sec",
                clip_end: "clip_end_sec",
            };
            let label = self.label(action, "structured_verb");
            let (times, cut) = self.in_clip(action, clip_uid.unwrap_or_default(), &keys)?;
            let cut = cut.filter(|_| clip_uid.is_some());
            let id = action.get("uid").and_then(Value::as_str).map(str::to_owned);
            self.push(uid, times, label, None, cut, id)?;
        }
        Ok(())
    }

    /// Returns the times of `object` in the video, and the same in the file of its clip.
    fn in_clip(
        &self,
        object: &Value,
        clip_uid: &str,
        keys: &Keys,
    ) -> anyhow::Result<(Times, Option<Cut>)> {
        let times = self.times(object, keys.start, keys.end)?;
        if times.is_none() {
            return Err(self.fault(&format!("has no {} or no {}", keys.start, keys.end)));
        }
        let in_clip = self.times(object, keys.clip_start, keys.clip_end)?;
        let bound = |seconds| self.source.options.times.then_some(Bound::Seconds(seconds));
        let cut = in_clip.map(|(start, end)| Cut {
            name: clip_uid.to_owned(),
            start: bound(start),
            end: bound(end),
        });
        Ok((times, cut))
    }

    /// Reads the actions of long-term anticipation, or of changes of state.
    pub fn clips(&mut self, clips: &[Value]) -> anyhow::Result<()> {
        for clip in clips {
            self.number += 1;
            let uid = self.text(clip, "video_uid")?;
            let clip_uid = clip.get("clip_uid").and_then(Value::as_str);
            let is_change = clip.get("parent_start_sec").is_some();
            let (times, in_clip, own) = if is_change {
                let times = self.times(clip, "parent_start_sec", "parent_end_sec")?;
                let in_clip = self.times(clip, "clip_start_sec", "clip_end_sec")?;
                (times, in_clip, "state_change")
            } else {
                let in_clip = self.times(clip, "action_clip_start_sec", "action_clip_end_sec")?;
                let origin = self.time(clip, "clip_parent_start_sec")?;
                let shift = |((start, end), origin)| (origin + start, origin + end);
                (in_clip.zip(origin).map(shift), in_clip, "verb")
            };
            if times.is_none() {
                return Err(self.unknown());
            }
            let bound = |seconds| self.source.options.times.then_some(Bound::Seconds(seconds));
            let cut = clip_uid.zip(in_clip).map(|(name, (start, end))| Cut {
                name: name.to_owned(),
                start: bound(start),
                end: bound(end),
            });
            let label = self.label(clip, own);
            let id = clip.get("unique_id").and_then(Value::as_str).or(clip_uid);
            let id = id.map(str::to_owned);
            self.push(&uid, times, label, None, cut, id)?;
        }
        Ok(())
    }
}
