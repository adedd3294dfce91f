//! A report on runs as one self-contained HTML file.

use super::curves;
use super::history::History;
use super::{CONFIG_FILE, PICTURE_FILE};
use crate::config::Task;
use crate::plot::{png, reconstruction};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use image::RgbImage;
use indicatif::HumanDuration;
use schemas::report::RunFigures;
use std::fmt::Write;
use std::fs;
use std::io;
use std::time::Duration;

const STYLE: &str = "\
body { font: 16px/1.5 system-ui, sans-serif; color: #24282e; max-width: 1100px; margin: 2.5rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
table { border-collapse: collapse; } th, td { text-align: right; padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid #e8eaed; }
th { color: #6e747d; font-weight: 500; } th:first-child, td:first-child { text-align: left; }
.swatch { display: inline-block; width: 1.4rem; height: .25rem; margin-right: .6rem; vertical-align: middle; }
img { max-width: 100%; } .pixels { image-rendering: pixelated; } pre { background: #f6f7f8; padding: 1rem; overflow-x: auto; font-size: .85rem; }
ol { color: #6e747d; }";

/// Renders the report on `runs`, whose curves are `curves`: figures, curves, and for each run its
/// configuration and its latest picture, if its folder has them.
///
/// # Errors
/// When an existing file of a run cannot be read.
pub fn render_html(runs: &[History], curves: &RgbImage) -> io::Result<String> {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = escape(&names.join(", "));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta \
         name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<h1>{title}</h1>\n<table>\n<tr><th>run</th><th>steps</th><th>epochs</th>\
         <th>loss, first ten steps</th><th>loss, last ten</th><th>clips/s</th><th>waiting for \
         data</th><th>time</th></tr>\n"
    );
    for (number, run) in runs.iter().enumerate() {
        render_figures(&mut html, number, &run.figures());
    }
    let _ = writeln!(
        html,
        "</table>\n<h2>Curves</h2>\n{}",
        inline_picture(&png(curves)?, "curves of the runs", "")
    );
    for run in runs {
        render_run(&mut html, run)?;
    }
    html.push_str("</body>\n</html>\n");
    Ok(html)
}

fn render_figures(html: &mut String, number: usize, figures: &RunFigures) {
    let [red, green, blue] = curves::color(number).0;
    let RunFigures {
        name,
        steps,
        epochs,
        first_loss,
        last_loss,
        seconds,
        clips_per_second,
        stall_fraction,
        ..
    } = figures;
    let _ = writeln!(
        html,
        "<tr><td><span class=\"swatch\" style=\"background: rgb({red}, {green}, \
         {blue})\"></span>{}</td><td>{steps}</td><td>{epochs:.1}</td>\
         <td>{first_loss:.4}</td><td>{last_loss:.4}</td><td>{clips_per_second:.1}</td><td>{:.1} \
         %</td><td>{}</td></tr>",
        escape(name),
        100.0 * stall_fraction,
        HumanDuration(Duration::try_from_secs_f64(*seconds).unwrap_or_default())
    );
}

/// Renders picture and configuration of a run.
fn render_run(html: &mut String, run: &History) -> io::Result<()> {
    let config = if_exists(fs::read_to_string(run.dir.join(CONFIG_FILE)))?;
    let picture = if_exists(fs::read(run.dir.join(PICTURE_FILE)))?;
    let name = escape(&run.name);
    if let Some(picture) = picture {
        let _ = writeln!(html, "<h2>{name}: reconstruction</h2>");
        // The meaning of the rows depends on the configuration.
        if let Some(Task::Pretrain(config)) =
            config.as_deref().and_then(|text| Task::parse(text).ok())
        {
            let rows: String = reconstruction::rows(
                config.objective.target.kind,
                config.objective.target.normalise,
            )
            .iter()
            .map(|row| format!("<li>{row}</li>"))
            .collect();
            let _ = writeln!(html, "<p>Rows of each clip:</p>\n<ol>{rows}</ol>");
        }
        let _ = writeln!(
            html,
            "{}",
            inline_picture(&picture, "frames and their reconstruction", "pixels")
        );
    }
    if let Some(config) = config {
        let _ = writeln!(
            html,
            "<h2>{name}: configuration</h2>\n<pre>{}</pre>",
            escape(&config)
        );
    }
    Ok(())
}

fn inline_picture(png: &[u8], meaning: &str, class: &str) -> String {
    format!(
        "<img class=\"{class}\" alt=\"{meaning}\" src=\"data:image/png;base64,{}\">",
        BASE64_STANDARD.encode(png)
    )
}

fn if_exists<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::history::tests::run;
    use crate::model::TargetKind;

    #[test]
    fn a_report_holds_all_of_its_runs_and_needs_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let dirs = ["a<b", "plain"].map(|name| dir.path().join(name));
        dirs.iter().for_each(|dir| run(dir, 12));
        let config = crate::config::PretrainConfig::resolve(crate::config::Preset::Tiny, &[]);
        let config = config.expect("a preset").to_toml();
        fs::write(dirs[0].join(CONFIG_FILE), &config).expect("written");
        let picture = RgbImage::from_pixel(3, 2, image::Rgb([9, 8, 7]));
        picture.save(dirs[0].join(PICTURE_FILE)).expect("written");
        let runs = History::read_all(&dirs).expect("read");
        let html = render_html(&runs, &curves::draw(&runs)).expect("a report");
        assert!(html.contains("<h1>a&lt;b, plain</h1>") && !html.contains("a<b"));
        assert!(html.contains(&format!("<td>{:.4}</td>", runs[1].figures().last_loss)));
        assert!(
            html.contains(&escape(&config)),
            "the configuration of the run that has one"
        );
        // Both pictures are complete.
        let pictures: Vec<RgbImage> = html
            .split("base64,")
            .skip(1)
            .map(|rest| {
                let bytes = BASE64_STANDARD
                    .decode(rest.split('"').next().expect("an end"))
                    .expect("base64");
                image::load_from_memory(&bytes).expect("a PNG").into_rgb8()
            })
            .collect();
        assert_eq!(pictures.len(), 2);
        assert!(pictures[1] == picture && pictures[0].width() > 1000);
        assert!(!html.contains("http") && !html.contains("<script"));
        assert_eq!(
            reconstruction::rows(TargetKind::Pixels, true)
                .iter()
                .filter(|row| html.contains(*row))
                .count(),
            4
        );
    }
}
