// The morning page is whole without this: here it gets ages, filters, sorting, copying, charts, and
// the runs that have ended since it was written, which come as calls from gallery.js.
(function () {
  "use strict";

  var body = document.body;
  var STATES = JSON.parse(body.dataset.states);
  var AT = Number(body.dataset.at), OFFSET = Number(body.dataset.offset);
  var STRIP = 14, LATE = 900, MOST = 50;
  var ran = [];
  window.researchJobsRan = function (run) { ran.push(run); };
  window.researchJobsNotebook = function () {};  // lines of an earlier version

  function all(selector, inside) { return Array.prototype.slice.call((inside || document).querySelectorAll(selector)); }
  function one(selector, inside) { return (inside || document).querySelector(selector); }
  function make(tag, name, text) {
    var element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined && text !== null) element.textContent = text;
    return element;
  }

  // ---- times: one zone, that of the page

  var DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
  var MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  function two(number) { return (number < 10 ? "0" : "") + number; }
  function moment(unix) {
    var there = new Date((unix + OFFSET) * 1000);
    return DAYS[there.getUTCDay()] + " " + two(there.getUTCDate()) + " " + MONTHS[there.getUTCMonth()] + " " + two(there.getUTCHours()) + ":" + two(there.getUTCMinutes());
  }
  function near(seconds) {
    if (seconds < 60) return "a moment";
    if (seconds < 3600) return Math.floor(seconds / 60) + " min";
    if (seconds < 2 * 86400) return Math.floor(seconds / 3600) + " h";
    return Math.floor(seconds / 86400) + " days";
  }
  function length(seconds) {
    if (seconds < 0.0995) return Math.round(seconds * 1000) + " ms";
    if (seconds < 60) return seconds.toFixed(seconds < 10 ? 2 : 1) + " s";
    if (seconds < 3600) return Math.floor(seconds / 60) + " min " + two(Math.round(seconds % 60)) + " s";
    return Math.floor(seconds / 3600) + " h " + two(Math.round(seconds % 3600 / 60)) + " min";
  }
  function unixOf(time) { return Date.parse(time.getAttribute("datetime")) / 1000; }
  function ages() {
    var now = Date.now() / 1000;
    all(".c-ended time").forEach(function (time) {
      time.title = moment(unixOf(time));
      time.textContent = near(now - unixOf(time)) + " ago";
    });
    all(".c-next time").forEach(function (time) {
      var ahead = unixOf(time) - now;
      time.title = moment(unixOf(time));
      time.textContent = ahead > 0 ? "in " + near(ahead) : "due " + near(-ahead) + " ago";
      time.className = ahead < -LATE ? "rg-overdue" : "";
    });
    all(".rg-when time").forEach(function (time) { time.title = near(now - unixOf(time)) + " ago"; });
    if (AT) {
      var age = one(".rg-age");
      age.textContent = " (" + near(now - AT) + " ago)";
      age.classList.toggle("rg-overdue", now - AT > 3600);
    }
  }

  // ---- what has run since the page was written

  function rowOf(name) { return all(".rg-all tr[data-name]").filter(function (row) { return row.dataset.name === name; })[0]; }
  function newRow(name) {
    var row = one("tr", document.getElementById("row").content).cloneNode(true);
    var group = one(".rg-all tbody");
    row.dataset.name = name;
    one("th a", row).textContent = name;
    one("th a", row).href = name + "/index.html";
    one(".c-runs .rg-strip", row).textContent = "";
    if (!group) group = one(".rg-all").appendChild(make("tbody"));
    group.appendChild(row);
    return row;
  }
  function setState(cell, ending, address) {
    var known = STATES[ending] || [ending, "bad", 99];
    var shown = make(address ? "a" : "span", "rg-state " + known[1], known[0]);
    if (address) shown.href = address;
    cell.replaceChildren(shown);
    cell.dataset.sort = known[2];
    return known;
  }
  function update(run) {
    var row = rowOf(run.name) || newRow(run.name);
    var busy = one(".c-state .busy", row);
    if (run.started < Number(row.dataset.started) || (run.started - row.dataset.started < 0.002 && !busy)) return false;
    var known = setState(one(".c-state", row), run.ending, run.report);
    var ended = run.started + run.duration;
    var time = make("time");
    time.setAttribute("datetime", new Date(ended * 1000).toISOString());
    one(".c-ended", row).replaceChildren(time);
    one(".c-ended", row).dataset.sort = ended;
    one(".c-took", row).textContent = length(run.duration);
    one(".c-took", row).dataset.sort = run.duration;
    var strip = one(".rg-strip", row);
    if (busy && strip.lastChild) strip.lastChild.remove();
    var cell = strip.appendChild(make("i", known[1]));
    cell.title = [known[0], moment(run.started), run.partition, length(run.duration)].filter(Boolean).join(", ");
    while (strip.children.length > STRIP) strip.firstElementChild.remove();
    row.dataset.started = run.started;
    if (run.thumbnail) row.dataset.thumbnail = run.thumbnail;
    row.dataset.flags = row.dataset.flags.replace(/\bnever\b/, "");
    return true;
  }
  function problem(run) {
    var known = STATES[run.ending] || [run.ending, "bad"];
    if (known[1] !== "bad" && known[1] !== "held") return;
    var item = one("li", document.getElementById("problem").content).cloneNode(true);
    var quoted = /^[\w@%+=:,.\/-]+$/.test(run.partition || "") ? run.partition : "'" + String(run.partition).replace(/'/g, "'\"'\"'") + "'";
    item.className = "rg-problem " + known[1];
    item.dataset.names = run.name;
    var shown = one(".rg-head .rg-state", item);
    shown.className = "rg-state " + known[1];
    shown.textContent = known[0];
    one(".rg-who a", item).textContent = run.name;
    all("a", item).forEach(function (link) { link.href = run.report; });
    if (run.partition) one(".rg-key", item).textContent = run.partition; else one(".rg-key", item).remove();
    one(".rg-when", item).textContent = moment(run.started);
    one(".rg-why", item).textContent = run.headline || "";
    one("code", item).textContent = "research-jobs run " + run.name + (run.partition ? " --partition " + quoted : "");
    document.getElementById("attention").prepend(item);
  }
  function since() {
    var news = 0, last = {};
    ran.sort(function (a, b) { return a.started - b.started; });
    ran.forEach(function (run) {
      if (!update(run)) return;
      news += 1;
      last[run.name + "\0" + run.partition] = run;
    });
    Object.keys(last).forEach(function (key) {
      var run = last[key];
      all(".rg-problem").forEach(function (item) {
        if (item.dataset.names === run.name && (!run.partition || one(".rg-key", item) && one(".rg-key", item).textContent === run.partition)) item.classList.add("rg-over");
      });
    });
    Object.keys(last).slice(-MOST).forEach(function (key) { problem(last[key]); });
    if (news && AT) one(".rg-asof").appendChild(make("span", "rg-news", " " + news + (news === 1 ? " run has" : " runs have") + " ended since and " + (news === 1 ? "is" : "are") + " shown."));
  }

  // ---- filters live in the address

  var filter = {};
  function read() {
    filter = {};
    new URLSearchParams(location.hash.slice(1)).forEach(function (value, key) { filter[key] = value; });
  }
  function set(key, value) {
    if (value) filter[key] = value; else delete filter[key];
    location.replace("#" + new URLSearchParams(filter));  // no entry in the history for each letter
    show();
  }
  function has(list, value) { return (list || "").split("|").indexOf(value) >= 0; }
  function words(text) {
    return (filter.q || "").toLowerCase().split(/\s+/).every(function (word) { return text.toLowerCase().indexOf(word) >= 0; });
  }
  function matches(row) {
    var it = row.dataset;
    if (filter.show && it.flags.split(" ").indexOf(filter.show) < 0) return false;
    if (filter.group && it.group !== filter.group) return false;
    if (filter.tag && !has(it.tags, filter.tag)) return false;
    if (filter.owner && !has(it.owners, filter.owner)) return false;
    return words([it.name, it.group, it.about, it.tags, it.owners, one(".c-state", row).textContent].join(" "));
  }
  var groups = [];
  function key(row, by) {
    return by === "name" ? row.dataset.name : Number(one(".c-" + by, row).dataset.sort);
  }
  function sort() {
    var by = (filter.sort || "").replace("-", ""), down = /^-/.test(filter.sort || "");
    var sorts = ["name", "state", "took", "parts", "ended", "next", "used"].indexOf(by) >= 0;
    var table = one(".rg-all");
    table.classList.toggle("rg-flat", sorts);
    all("thead th[data-by]").forEach(function (head) {
      if (sorts && head.dataset.by === by) head.setAttribute("aria-sort", down ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
    });
    groups.forEach(function (group) { group.rows.forEach(function (row) { group.body.appendChild(row); }); });
    if (!sorts || !groups.length) return;
    var rows = groups.reduce(function (sum, group) { return sum.concat(group.rows); }, []);
    rows.sort(function (a, b) {
      var first = key(a, by), second = key(b, by);
      var order = first < second ? -1 : first > second ? 1 : 0;
      return (down ? -order : order) || (a.dataset.name < b.dataset.name ? -1 : 1);
    });
    rows.forEach(function (row) { groups[0].body.appendChild(row); });
  }
  function show() {
    sort();
    var names = {}, found = 0, narrowed = filter.q || filter.group || filter.tag || filter.owner || filter.show;
    groups.forEach(function (group) {
      var shown = 0;
      group.rows.forEach(function (row) {
        row.hidden = !matches(row);
        if (!row.hidden) { names[row.dataset.name] = true; shown += 1; }
      });
      var head = one(".rg-group", group.body);
      if (head) head.hidden = !shown || Boolean(filter.sort);
      found += shown;
    });
    all(".rg-problem").forEach(function (item) {
      var theirs = item.dataset.names.split("|");
      item.hidden = Boolean(narrowed) && !theirs.some(function (name) { return names[name]; }) && !(filter.q && !filter.group && !filter.tag && !filter.owner && words(item.textContent));
    });
    all(".rg-odd li").forEach(function (item) { item.hidden = Boolean(narrowed) && !names[item.dataset.name]; });
    one(".rg-none").hidden = found > 0;
    one(".rg-all").hidden = filter.view === "charts" || !found;
    one(".rg-charts").hidden = filter.view !== "charts";
    if (filter.view === "charts") charts();
    all(".rg-sum button").forEach(function (button) { button.setAttribute("aria-pressed", String(button.dataset.show === (filter.show || ""))); });
    all(".rg-tools select").forEach(function (select) { select.value = filter[select.dataset.key] || ""; });
    var search = one(".rg-tools input");
    if (search.value !== (filter.q || "")) search.value = filter.q || "";
  }

  // ---- charts: a script beside the notebook's page has plotly's figure and names plotly's own

  var WIDTH = 640, HEIGHT = 360;
  var figures = {}, libraries = {}, waiting = {};

  function load(address, done) {
    var script = make("script");
    script.src = address;
    script.onload = done;
    document.head.appendChild(script);
  }
  function plot(name) {
    var figure = figures[name], box = waiting[name];
    var library = libraries[figure.plotly];
    if (!library) {
      // Notebooks may have been run with several versions: each names itself "Plotly".
      load(figure.plotly, function () { libraries[figure.plotly] = window.Plotly; plot(name); });
      return;
    }
    var place = make("div", "rg-plot");
    var margin = { l: 50, r: 20, t: figure.layout && figure.layout.title ? 50 : 20, b: 40 };
    var size = { width: WIDTH, height: HEIGHT, margin: margin, autosize: false, showlegend: false };
    box.replaceChildren(place);
    place.style.transform = "scale(" + box.clientWidth / WIDTH + ")";
    Promise.resolve().then(function () {
      return library.newPlot(place, figure.data || [], Object.assign({}, figure.layout, size), { staticPlot: true });
    }).catch(function () { box.replaceChildren(); box.classList.add("rg-blank"); });
  }
  window.researchJobsFigure = function (figure) {
    if (!waiting[figure.notebook] || !/^assets\/plotly-\w+\.min\.js$/.test(figure.plotly)) return;
    figures[figure.notebook] = figure;
    plot(figure.notebook);
  };
  function whenSeen(box, done) {
    var watcher = new IntersectionObserver(function (entries) {
      if (!entries.some(function (entry) { return entry.isIntersecting; })) return;
      watcher.disconnect();
      done();
    }, { rootMargin: "300px" });
    watcher.observe(box);
  }
  function card(row) {
    var name = row.dataset.name, address = row.dataset.thumbnail;
    var shown = one(".c-state .rg-state", row).cloneNode(true);
    var shot = make("a", address ? "rg-shot" : "rg-shot rg-blank");
    shot.href = shown.href || name + "/index.html";
    shot.setAttribute("aria-label", "Last report of " + name);
    if (/\.js(\?|$)/.test(address || "")) {
      whenSeen(shot, function () {
        waiting[name] = shot;
        if (figures[name]) plot(name); else load(address);
      });
    } else if (address) {
      var image = shot.appendChild(make("img"));
      image.loading = "lazy";
      image.alt = "";
      image.src = address;
    }
    var title = make("a", "rg-title", name);
    title.href = name + "/index.html";
    var text = make("div", "rg-body");
    text.append(title, make("div", "rg-text", row.dataset.about), shown);
    var made = make("article", "rg-card");
    made.append(shot, text);
    return made;
  }
  function charts() {
    var rows = all(".rg-all tr[data-name]").filter(function (row) { return !row.hidden; });
    one(".rg-charts").replaceChildren.apply(one(".rg-charts"), rows.map(card));
  }

  // ---- a person at the page

  function copy(button) {
    var text = one("code", button.parentNode).textContent;
    function done() { button.textContent = "Copied"; setTimeout(function () { button.textContent = "Copy"; }, 1500); }
    function byHand() {  // without a secure address there is no clipboard
      var area = body.appendChild(make("textarea", "", text));
      area.select();
      document.execCommand("copy");
      area.remove();
      done();
    }
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, byHand); else byHand();
  }
  function start() {
    since();
    all(".rg-all tbody").forEach(function (part) { groups.push({ body: part, rows: all("tr[data-name]", part) }); });
    all("thead th[data-by]").forEach(function (head) {
      var button = make("button", "", head.textContent);
      button.type = "button";
      button.addEventListener("click", function () {
        var by = head.dataset.by, first = by === "state" || by === "took" || by === "ended" ? "-" + by : by;
        set("sort", filter.sort === first ? (first === by ? "-" + by : by) : filter.sort ? (filter.sort.replace("-", "") === by ? "" : first) : first);
      });
      head.replaceChildren(button);
    });
    all(".rg-sum button").forEach(function (button) { button.addEventListener("click", function () { set("show", filter.show === button.dataset.show ? "" : button.dataset.show); }); });
    all(".rg-tools select").forEach(function (select) { select.addEventListener("change", function () { set(select.dataset.key, select.value); }); });
    var search = one(".rg-tools input");
    search.addEventListener("input", function () { set("q", search.value); });
    document.addEventListener("keydown", function (event) {
      if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && !event.ctrlKey && !event.metaKey) { event.preventDefault(); search.focus(); search.select(); }
      if (event.key === "Escape" && event.target === search) set("q", "");
    });
    all(".rg-copy").forEach(function (button) { button.hidden = false; });
    document.addEventListener("click", function (event) { if (event.target.className === "rg-copy") copy(event.target); });
    all(".rg-sum, .rg-tools").forEach(function (part) { part.hidden = false; });
    window.addEventListener("hashchange", function () { read(); show(); });
    ages();
    setInterval(ages, 30000);
    read();
    show();
  }
  window.addEventListener("DOMContentLoaded", start);
})();
