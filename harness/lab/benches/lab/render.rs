//! Reports become plots and tables in the documentation.
//!
//! Start from [`render`]. A plot follows the reader's light or dark theme: what it is drawn with is
//! replaced by `currentColor`, which a style sheet in the file sets for both. A table goes between the
//! marks `<!-- NAME -->` and `<!-- /NAME -->` of `bench.md`; the text around them is for people to write.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use plotters::coord::combinators::IntoLogRange as _;
use plotters::prelude::*;

use crate::report::{Line, Machine, Plot, Report, short};

const SIZE: (u32, u32) = (560, 320);
/// Stands for the theme's own colour of text, until [`themed`] says so.
const INK: RGBColor = RGBColor(1, 2, 3);
const INK_WRITTEN: &str = "#010203";
/// Apart from each other, and from black and white alike.
const COLOURS: [RGBColor; 5] = [
    RGBColor(47, 129, 247),
    RGBColor(219, 109, 40),
    RGBColor(46, 160, 67),
    RGBColor(163, 113, 247),
    RGBColor(140, 149, 159),
];
const STYLE: &str = "<style>svg{color:#1f2328;background:#fff}text{font-family:system-ui,sans-serif}\
    @media(prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}</style>";

/// Makes the plots and tables of a directory from the reports of another.
pub(crate) fn render(reports: &Path, docs: &Path) -> anyhow::Result<()> {
    let page = docs.join("bench.md");
    let mut text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    let plots = docs.join("bench");
    fs::create_dir_all(&plots)?;
    let mut files: Vec<_> = fs::read_dir(reports)?
        .flatten()
        .map(|file| file.path())
        .collect();
    files.sort();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    let mut ran = String::new();
    let mut machine = None;
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        let report: Report = serde_json::from_slice(&fs::read(&file)?)
            .with_context(|| file.display().to_string())?;
        let mut table = if report.measured.table.rows.is_empty() {
            String::new()
        } else {
            report.measured.table.markdown()
        };
        for skipped in &report.measured.skipped {
            writeln!(table, "\nNot measured: {skipped}.")?;
        }
        text = between(&text, &name, &table)?;
        // Those of a development build have the same names, and are told in the table alone.
        if name == report.measure.as_str() {
            for plot in &report.measured.plots {
                fs::write(plots.join(format!("{}.svg", plot.name)), drawn(plot)?)?;
            }
        }
        writeln!(
            ran,
            "| {name} | {} | {} | {} | {} |",
            short(report.seconds),
            short(report.load_before),
            short(report.machine.load),
            report.machine.commit,
        )?;
        machine.get_or_insert(report.machine);
    }
    let machine = machine.with_context(|| format!("no reports in {}", reports.display()))?;
    text = between(&text, "machine", &told(&machine, &ran))?;
    fs::write(page, text)?;
    Ok(())
}

fn told(machine: &Machine, ran: &str) -> String {
    let Machine {
        processor,
        cores,
        memory_gib,
        kernel,
        nft,
        ..
    } = machine;
    format!(
        "{cores} × {processor}, {memory_gib} GiB, Linux {kernel}, {nft}.\n\n\
         | measure | took, s | load before | load after | commit |\n\
         | --- | ---: | ---: | ---: | --- |\n{ran}"
    )
}

/// The text with something else between two marks.
fn between(text: &str, name: &str, new: &str) -> anyhow::Result<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let missing = || format!("bench.md has no marks {} … {end}", begin.trim());
    let (before, rest) = text.split_once(&begin).with_context(missing)?;
    let (_, after) = rest.split_once(&end).with_context(missing)?;
    Ok([before, &begin, new, &end, after].concat())
}

fn drawn(plot: &Plot) -> anyhow::Result<String> {
    let mut svg = String::new();
    draw(&mut svg, plot).map_err(|error| anyhow::anyhow!("{}: {error}", plot.name))?;
    Ok(themed(&svg, &plot.title))
}

/// The extent of some numbers, and room beside them.
fn extent(points: &[Line], of: impl Fn(&(f64, f64)) -> f64, room: (f64, f64)) -> (f64, f64) {
    let all = points.iter().flat_map(|line| &line.points).map(of);
    let (least, most) = all.fold((f64::MAX, f64::MIN), |(least, most), number| {
        (least.min(number), most.max(number))
    });
    (least / room.0, most * room.1)
}

type Drawn = Result<(), Box<dyn std::error::Error>>;

fn draw(svg: &mut String, plot: &Plot) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
    let x = extent(&plot.lines, |point| point.0, (1.15, 1.15));
    // The names of the lines are above them.
    let y = extent(&plot.lines, |point| point.1, (1.4, 1.4));
    let mut chart = ChartBuilder::on(&area)
        .caption(&plot.title, text(16))
        .margin(8)
        .margin_right(16)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d((x.0..x.1).log_scale(), (y.0..y.1).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(&plot.x)
        .y_desc(&plot.y)
        .x_label_formatter(&|number| plain(*number))
        .y_label_formatter(&|number| plain(*number))
        .label_style(text(12))
        .axis_desc_style(text(13))
        .axis_style(INK.mix(0.5))
        .bold_line_style(INK.mix(0.18))
        .light_line_style(INK.mix(0.06))
        .draw()?;
    for (line, colour) in plot.lines.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(
                line.points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
        let points = line.points.iter();
        chart.draw_series(points.map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(text(12))
        .draw()?;
    area.present()?;
    Ok(())
}

fn plain(number: f64) -> String {
    let digits = if number >= 1.0 { 0 } else { 2 };
    format!("{number:.digits$}")
}

fn themed(svg: &str, title: &str) -> String {
    let svg = svg.replace(INK_WRITTEN, "currentColor");
    match svg.split_once('>') {
        // The first element is the whole picture.
        Some((picture, rest)) => {
            format!("{picture} role=\"img\" aria-label=\"{title}\">{STYLE}{rest}")
        }
        None => svg,
    }
}
