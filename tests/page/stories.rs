//! What operators see and do.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::browser::Browser;
use crate::fixture::{broken, healthy};
use crate::server::{Scene, Server};

fn well() -> Scene {
    Arc::new(|now_ms| healthy(4, 64, now_ms))
}

fn ill() -> Scene {
    Arc::new(|now_ms| broken(4, 64, now_ms))
}

/// Everything came from this host, and nothing was complained about.
fn assert_clean(browser: &Browser, url: &str) {
    let foreign: Vec<&String> = browser.requests.iter().filter(|request| !request.starts_with(url)).collect();
    assert!(foreign.is_empty(), "asked elsewhere: {foreign:?}");
    assert!(browser.complaints.is_empty(), "{:#?}", browser.complaints);
}

const LIVE: &str = "document.getElementById('live').dataset.state === 'live'";

#[test]
fn the_page_turns_from_well_to_ill_and_back_without_being_loaded_again() {
    let server = Server::start(64, well());
    let mut browser = Browser::start();
    browser.size(1400, 900);
    browser.open(&server.url);
    browser.until(LIVE);
    browser.value("window.stayed = true; document.getElementById('partition-table').open = true");
    assert_eq!(browser.value("document.querySelector('h1').textContent"), "All is well");
    let as_of = browser.value("document.querySelector('#made time').dateTime");
    browser.until(&format!("document.querySelector('#made time').dateTime !== {as_of}"));
    browser.picture("light");
    server.play(ill());
    browser.until("document.querySelector('.headline').classList.contains('bad')");
    assert_eq!(browser.value("document.title.startsWith('✖ ')"), true);
    assert_eq!(browser.value("document.querySelectorAll('#map li.bad').length >= 5"), true);
    browser.value("document.getElementById('partition-table').open = false");
    browser.picture("broken-light");
    browser.dark(true);
    browser.picture("broken-dark");
    server.play(well());
    browser.until("document.querySelector('h1').textContent === 'All is well'");
    browser.picture("dark");
    browser.size(400, 860);
    browser.picture("narrow-dark");
    browser.dark(false);
    browser.picture("narrow");
    assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth"), true, "nothing is cut off");
    assert_eq!(browser.value("window.stayed"), true, "the page was loaded again");
    assert_clean(&browser, &server.url);
}

#[test]
fn what_was_opened_and_chosen_stays_while_the_page_changes() {
    let server = Server::start(64, well());
    let mut browser = Browser::start();
    browser.size(1400, 900);
    browser.open(&server.url);
    browser.until(LIVE);
    browser.value("document.getElementById('partition-table').open = true; document.getElementById('map').focus()");
    for key in ["ArrowRight", "ArrowRight", "ArrowRight"] {
        browser.key(key);
    }
    let details = browser.value("document.getElementById('map-details').textContent");
    assert!(details.as_str().is_some_and(|text| text.starts_with("Partition 2: running; owner slave-3")), "{details}");
    server.play(ill());
    browser.until("document.querySelector('.headline').classList.contains('bad')");
    browser.until("document.getElementById('map-details').textContent.startsWith('Partition 2: ')");
    assert_eq!(browser.value("document.getElementById('partition-table').open"), true);
    assert_eq!(browser.value("document.activeElement.id"), "map");
    assert_clean(&browser, &server.url);
}

#[test]
fn a_page_without_news_says_that_it_is_old() {
    let server = Server::start(64, well());
    let mut browser = Browser::start();
    browser.open(&server.url);
    browser.until(LIVE);
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < Duration::from_secs(3), "open streams held the stop up: {:?}", started.elapsed());
    browser.until("document.getElementById('live').dataset.state === 'lost'");
    assert_eq!(browser.value("document.title"), "? no news – holdfast");
    assert_eq!(browser.value("document.querySelector('h1').textContent"), "No news", "nothing old is said large");
    browser.picture("lost");
}

#[test]
fn all_is_there_without_javascript() {
    let server = Server::start(64, ill());
    let mut browser = Browser::start();
    browser.size(1400, 900);
    browser.scripts(false);
    browser.open(&server.url);
    browser.picture("without-scripts");
    let document = browser.call("DOM.getDocument", json!({ "depth": 1 }));
    let node = document["root"]["nodeId"].clone();
    let html = browser.call("DOM.getOuterHTML", json!({ "nodeId": node }));
    let html = html["outerHTML"].as_str().expect("text");
    for expected in [
        "kv is degraded",
        "reloads every 10 s",
        "http-equiv=\"refresh\" content=\"10\"",
        "As of ",
        "slave-4",
        "title=\"Partition 9: 2 gaps",
        "Time until visible: ",
    ] {
        assert!(html.contains(expected) || html.contains(&expected.replace(": ", ". ")), "{expected} is missing");
    }
    assert_clean(&browser, &server.url);
}

/// Run in the page: gives a list of what is not as it should be for those who do not see it.
const ACCESSIBILITY: &str = r#"(() => {
  const faults = [], all = (query) => [...document.querySelectorAll(query)];
  if (document.documentElement.lang !== 'en') faults.push('no language');
  if (all('h1').length !== 1) faults.push('not one h1');
  for (const landmark of ['header', 'main', 'nav', 'footer']) if (all(landmark).length !== 1) faults.push('not one ' + landmark);
  let level = 1;
  for (const heading of all('h1,h2,h3,h4')) {
    const own = Number(heading.tagName[1]);
    if (own > level + 1) faults.push('a level is left out at ' + heading.textContent);
    if (!heading.textContent.trim()) faults.push('an empty heading');
    level = own;
  }
  for (const section of all('section, nav, [role=region], [role=group]')) {
    const by = section.getAttribute('aria-labelledby');
    const name = section.getAttribute('aria-label') || (by && document.getElementById(by)?.textContent);
    if (!name) faults.push('a section without a name: ' + section.outerHTML.slice(0, 80));
  }
  for (const svg of all('svg')) if (!svg.getAttribute('aria-label') && svg.getAttribute('aria-hidden') !== 'true') faults.push('a drawing without words');
  for (const table of all('table')) {
    if (!table.caption) faults.push('a table without a caption');
    for (const head of table.querySelectorAll('th')) if (!head.scope) faults.push('a head without scope');
  }
  const ids = all('[id]').map((element) => element.id);
  if (new Set(ids).size !== ids.length) faults.push('an id twice');
  for (const link of all('a')) if (!link.textContent.trim()) faults.push('a link without words');
  if (!document.querySelector('#headline[aria-live=polite]')) faults.push('the headline is not announced');
  const channel = (value) => { value /= 255; return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4; };
  const light = (rgb) => 0.2126 * channel(rgb[0]) + 0.7152 * channel(rgb[1]) + 0.0722 * channel(rgb[2]);
  const parse = (text) => (text.match(/[\d.]+/g) || []).map(Number);
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parse(getComputedStyle(element).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  for (const element of all('body *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest('noscript')) continue;
    const style = getComputedStyle(element), isSvg = element instanceof SVGElement;
    const [a, b] = [light(parse(isSvg ? style.fill : style.color)), light(ground(element))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) faults.push('contrast ' + contrast.toFixed(2) + ' of ' + element.className + ' ' + element.textContent.slice(0, 30));
  }
  return [...new Set(faults)];
})()"#;

#[test]
fn the_page_can_be_read_by_those_who_see_little_or_nothing() {
    for scene in [well(), ill()] {
        let server = Server::start(64, scene);
        let mut browser = Browser::start();
        browser.size(1400, 900);
        browser.open(&server.url);
        browser.until(LIVE);
        browser.value("document.querySelectorAll('details').forEach((element) => { element.open = true; })");
        for is_dark in [false, true] {
            browser.dark(is_dark);
            assert_eq!(browser.value(ACCESSIBILITY), json!([]), "dark: {is_dark}");
        }
    }
}

#[test]
fn a_large_cluster_stays_readable_and_light() {
    let server = Server::start(4_096, Arc::new(|now_ms| broken(200, 4_096, now_ms)));
    let mut browser = Browser::start();
    browser.size(1400, 900);
    browser.open(&server.url);
    browser.until(LIVE);
    browser.picture("large");
    assert_eq!(browser.value("document.querySelectorAll('#map li').length"), 1_024);
    assert_clean(&browser, &server.url);
}

/// A process that ends with the test.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_process_alone_with_its_shop_is_well_and_shows_its_rates() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["up", "--demo", "--demo-rate", "200", "--http", "127.0.0.1:0", "--data", "data"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("holdfast starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let up = Up(child);
    let page = lines.map_while(Result::ok).find_map(|line| Some(line.trim().strip_prefix("page")?.trim().to_owned()));
    let url = page.expect("the page's address");
    let mut browser = Browser::start();
    browser.size(1400, 900);
    browser.open(&url);
    browser.until(LIVE);
    browser.until("Number(document.querySelector('.flow .figure b').textContent) > 50");
    browser.until("document.querySelector('h1').textContent === 'All is well'");
    // Charts need something to show.
    std::thread::sleep(Duration::from_secs(8));
    browser.until("document.querySelector('h1').textContent === 'All is well'");
    browser.picture("up");
    assert_clean(&browser, &url);
    let server = url.trim_end_matches('/');
    let status = Command::new(env!("CARGO_BIN_EXE_holdfast")).args(["status", "--server", server]).output();
    let status = status.expect("holdfast runs");
    let shown = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.code() == Some(0) && shown.starts_with("shop: all is well\n"), "{shown}");
    drop(up);
}
