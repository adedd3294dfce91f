//! The forms of list files, and the messages about them.

use super::List;
use std::path::Path;

/// The accepted forms, for help and errors.
pub const FORMS: &str = r#"List files are recognised by their content; several may be given:
  Kinetics       label,youtube_id,time_start,time_end,split
  UCF101         trainlist01.txt, testlist01.txt; classInd.txt for the class numbers
  HMDB51         *_test_split1.txt: the files of one split
  Something v2   train.json, validation.json, test.json, test-answers.csv, labels.json
  Moments        trainingSet.csv, validationSet.csv, moments_categories.txt
  EPIC-KITCHENS  EPIC_100_train.csv, ..., EPIC_100_verb_classes.csv, EPIC_100_noun_classes.csv
  Ego4D          moments_*.json, fho_lta_*.json, fho_oscc-pnr_*.json, fho_main.json
  ActivityNet    JSON of videos with annotations: label and segment in seconds
  Hugging Face   metadata.csv, .jsonl or .parquet with the column file_name
  Table          CSV, TSV, JSON array, JSON Lines or Parquet with named columns:
                 path, video, file_name, video_id, youtube_id, id, ...   the video
                 start, start_time, start_sec, ... and end, stop, ...    seconds or HH:MM:SS.ff
                 start_frame and end_frame                               frames, the end excluded
                 label, class, category or action                        class name or number
                 split or subset; id or clip_id                          optional
  Lines          path, or path and label separated by a blank, a tab or a comma;
                 folder, number of frames and label (mmaction2); # starts a comment
Labels are class names or integers from 0; -1 or an empty label means no label. Another column
holds the labels with --list-label COLUMN. Names of videos are paths, ids or file names, with or
without extension."#;

/// The form of a list file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// CSV of Kinetics 400, 600 or 700.
    Kinetics,
    /// `trainlist01.txt` or `testlist01.txt`.
    Ucf101,
    /// `classInd.txt`, and other lists of number and name.
    NumberedClasses,
    /// `brush_hair_test_split1.txt`.
    Hmdb51,
    /// `train.json`, `validation.json` and `test.json`.
    Something,
    /// Lines of id and label, separated by a semicolon, such as `test-answers.csv`.
    SomethingAnswers,
    /// `labels.json`, and other JSON objects of names and numbers.
    ClassObject,
    /// `trainingSet.csv` and `validationSet.csv`.
    Moments,
    /// `moments_categories.txt`, and other lists of name and number.
    NamedClasses,
    /// CSV of EPIC-KITCHENS 55 or 100.
    Epic,
    /// CSV of the verbs or nouns of EPIC-KITCHENS.
    EpicClasses,
    /// `moments_train.json`.
    Ego4dMoments,
    /// `fho_lta_train.json`, `fho_oscc-pnr_train.json` and `fho_main.json`.
    Ego4dActions,
    /// `fho_lta_taxonomy.json`.
    Ego4dClasses,
    /// JSON of ActivityNet or of Kinetics.
    ActivityNet,
    /// `metadata.csv` or `metadata.jsonl`.
    HuggingFace,
    /// Another table with a header.
    Table,
    /// Lines of paths, with or without labels.
    Lines,
    /// Lines of folder, number of frames and label.
    RawFrames,
}

impl Form {
    /// Returns a description with its article, for messages.
    pub const fn description(self) -> &'static str {
        match self {
            Self::Kinetics => "a Kinetics list",
            Self::Ucf101 => "a UCF101 split list",
            Self::NumberedClasses => "class names by number",
            Self::Hmdb51 => "an HMDB51 split list",
            Self::Something => "a Something-Something v2 list",
            Self::SomethingAnswers => "a list of ids and labels",
            Self::ClassObject => "class names with numbers, as of Something-Something",
            Self::Moments => "a Moments in Time list",
            Self::NamedClasses => "class names with numbers",
            Self::Epic => "an EPIC-KITCHENS list",
            Self::EpicClasses => "EPIC-KITCHENS class names",
            Self::Ego4dMoments => "an Ego4D list of moments",
            Self::Ego4dActions => "an Ego4D list of actions",
            Self::Ego4dClasses => "Ego4D class names",
            Self::ActivityNet => "an ActivityNet list",
            Self::HuggingFace => "Hugging Face metadata",
            Self::Table => "a table",
            Self::Lines => "a list of paths",
            Self::RawFrames => "a list of folders, numbers of frames and labels",
        }
    }

    /// Whether the file names classes instead of videos.
    pub const fn is_classes(self) -> bool {
        matches!(
            self,
            Self::NumberedClasses
                | Self::ClassObject
                | Self::NamedClasses
                | Self::EpicClasses
                | Self::Ego4dClasses
        )
    }
}

/// What a list file was recognised as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recognised {
    /// Number of the file.
    pub file: usize,
    /// Its form.
    pub form: Form,
    /// What its entries are numbered by: `line`, `row` or `entry`.
    pub unit: &'static str,
    /// Number of its entries, duplicates included, or of its classes.
    pub entries: usize,
    /// Whether its entries have times.
    pub segments: bool,
    /// What else is worth telling, such as `split train`.
    pub notes: Vec<String>,
}

impl List {
    /// Returns a message per file: what it was recognised as. Files of one form with the same notes
    /// that follow each other share one, but for files of classes.
    pub fn messages(&self) -> Vec<String> {
        let mut messages = Vec::new();
        let mut rest = self.recognised.as_slice();
        while let Some(first) = rest.first() {
            let is_same = |other: &&Recognised| {
                let is_list = !first.form.is_classes();
                is_list && other.form == first.form && other.notes == first.notes
            };
            let same = rest.iter().take_while(is_same).count().max(1);
            let (group, others) = rest.split_at(same);
            rest = others;
            messages.push(self.message(group));
        }
        messages
    }

    /// Returns the message about files of one form.
    fn message(&self, group: &[Recognised]) -> String {
        let name = |recognised: &Recognised| file_name(&self.files[recognised.file]);
        let (first, last) = (&group[0], &group[group.len() - 1]);
        let files = match group.len() {
            1 => name(first),
            number => format!("{number} files, {} to {}, each", name(first), name(last)),
        };
        let entries = group.iter().map(|one| one.entries).sum();
        let what = match (first.form.is_classes(), first.segments) {
            (true, _) => amount(entries, "class", "classes"),
            (false, true) => amount(entries, "segment", "segments"),
            (false, false) => amount(entries, "video", "videos"),
        };
        let notes = first.notes.iter().map(String::as_str);
        let parts: Vec<&str> = [what.as_str()].into_iter().chain(notes).collect();
        format!(
            "recognised {files} as {}: {}",
            first.form.description(),
            parts.join(", ")
        )
    }
}

/// Renders a number with commas, and the noun that belongs to it.
pub fn amount(number: usize, one: &str, many: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {}", if number == 1 { one } else { many })
}

/// Returns the name of the file `path`.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
