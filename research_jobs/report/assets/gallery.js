// The pages of all notebooks and of one. The data come as calls, from gallery.js and runs.js.
(function () {
  "use strict";

  var body = document.body;
  var up = body.dataset.up || "";
  var isOne = up !== "";
  var notebooks = {};
  var runs = [];

  window.researchJobsNotebook = function (item) {
    var known = notebooks[item.name];
    if (known) {
      var late = known.last && (!item.last || known.last.started > item.last.started);
      var first = late ? known : item;
      item.thumbnail = first.thumbnail || (late ? item : known).thumbnail;
      item.last = first.last;
    }
    notebooks[item.name] = item;
  };
  window.researchJobsRun = function (run) { runs.push(run); };

  // A page that is older than a line of its data may lack a state.
  var STATES = JSON.parse(body.dataset.states);
  function words(run) { return (STATES[run ? run.ending : "never_run"] || [run.ending])[0]; }
  function kind(run) { return (STATES[run ? run.ending : "never_run"] || ["", "bad"])[1]; }
  var TABLE = "M3 5h18v14H3zM3 10h18M3 14.5h18M9 5v14M15 5v14";

  function make(tag, name, text) {
    var element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined && text !== null) element.textContent = text;
    for (var index = 3; index < arguments.length; index++) {
      if (arguments[index]) element.appendChild(arguments[index]);
    }
    return element;
  }
  function link(address, name, text) {
    var element = make("a", name, text);
    element.href = address;
    return element;
  }
  function near(seconds) {
    var steps = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [86400 * 60, 86400, "d"]];
    for (var index = 0; index < steps.length; index++) {
      if (seconds < steps[index][0]) return Math.max(1, Math.round(seconds / steps[index][1])) + " " + steps[index][2];
    }
    return Math.round(seconds / 86400 / 30.4) + " months";
  }
  function length(seconds) {
    if (seconds < 0.0995) return Math.round(seconds * 1000) + " ms";
    if (seconds < 60) return seconds.toFixed(seconds < 10 ? 2 : 1) + " s";
    if (seconds < 3600) return Math.floor(seconds / 60) + " min " + Math.round(seconds % 60) + " s";
    return Math.floor(seconds / 3600) + " h " + Math.round(seconds % 3600 / 60) + " min";
  }
  function moment(unix) {
    return new Date(unix * 1000).toLocaleString(undefined, { weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
  }
  function state(run, address) {
    var name = "rg-state " + kind(run);
    return address ? link(address, name, words(run)) : make("span", name, words(run));
  }
  function icon() {
    var space = "http://www.w3.org/2000/svg";
    var svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", "0 0 24 24");
    var path = document.createElementNS(space, "path");
    path.setAttribute("d", TABLE);
    path.setAttribute("fill", "none");
    path.setAttribute("stroke", "currentColor");
    path.setAttribute("stroke-width", "1.2");
    svg.appendChild(path);
    return svg;
  }

  // ---- charts of plotly: a script beside the notebook's page has the figure and names plotly's own

  var WIDTH = 640, HEIGHT = 360;
  var figures = {}, libraries = {}, waiting = {};

  function load(address, done) {
    var script = make("script");
    script.src = address;
    script.onload = done;
    document.head.appendChild(script);
  }
  function draw(name, address, box) {
    waiting[name] = box;
    if (figures[name]) plot(name); else load(address);
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
    box.textContent = "";
    box.appendChild(place);
    place.style.transform = "scale(" + box.clientWidth / WIDTH + ")";
    Promise.resolve().then(function () {
      return library.newPlot(place, figure.data || [], Object.assign({}, figure.layout, size), { staticPlot: true });
    }).catch(function () {
      box.textContent = "";
      box.className = "rg-shot rg-blank";
      box.appendChild(icon());
    });
  }
  window.researchJobsFigure = function (figure) {
    if (!waiting[figure.notebook] || !/^assets\/plotly-\w+\.min\.js$/.test(figure.plotly)) return;
    figures[figure.notebook] = figure;
    plot(figure.notebook);
  };
  function whenSeen(box, done) {
    if (!("IntersectionObserver" in window)) { done(); return; }
    var watcher = new IntersectionObserver(function (entries) {
      if (!entries.some(function (entry) { return entry.isIntersecting; })) return;
      watcher.disconnect();
      done();
    }, { rootMargin: "300px" });
    watcher.observe(box);
  }

  // ---- all notebooks

  var filter = { text: "", group: "", tag: "", owner: "", ending: "" };
  var list;

  function tagsOf(item) {
    return Object.keys(item.tags || {}).map(function (key) { return item.tags[key] ? key + ": " + item.tags[key] : key; });
  }
  function matches(name, item) {
    if (filter.ending && filter.ending !== kind(item.last)) return false;
    if (filter.group && item.group !== filter.group) return false;
    if (filter.tag && tagsOf(item).indexOf(filter.tag) < 0) return false;
    if (filter.owner && (item.owners || []).indexOf(filter.owner) < 0) return false;
    var all = [name, item.description, item.group, item.last && item.last.headline].concat(tagsOf(item), item.owners).join(" ").toLowerCase();
    return filter.text.toLowerCase().split(/\s+/).every(function (word) { return all.indexOf(word) >= 0; });
  }
  function chip(text, key) {
    var button = make("button", "", text);
    button.type = "button";
    button.addEventListener("click", function () { filter[key] = text; sync(); show(); });
    return button;
  }
  function card(name, item) {
    var place = name.lastIndexOf("/") + 1;
    var page = name + "/index.html";
    var shot = link(item.last ? item.last.report : page, item.thumbnail ? "rg-shot" : "rg-shot rg-blank");
    shot.setAttribute("aria-label", "Last report of " + name);
    if (/\.js(\?|$)/.test(item.thumbnail || "")) {
      whenSeen(shot, function () { draw(name, item.thumbnail, shot); });
    } else if (item.thumbnail) {
      var image = make("img");
      image.loading = "lazy";
      image.alt = "";
      image.src = item.thumbnail;
      shot.appendChild(image);
    } else {
      shot.appendChild(icon());
    }
    var title = link(item.last ? page : "#", "rg-title");
    if (!item.last) { shot.removeAttribute("href"); title.removeAttribute("href"); }
    if (place) title.appendChild(make("span", "", name.slice(0, place)));
    title.appendChild(document.createTextNode(name.slice(place)));
    var failed = item.last && kind(item.last) === "bad" && item.last.headline;
    var text = make("div", failed ? "rg-text rg-bad" : "rg-text", failed ? item.last.headline : item.description);
    var chips = make("div", "rg-chips");
    tagsOf(item).forEach(function (tag) { chips.appendChild(chip(tag, "tag")); });
    (item.owners || []).forEach(function (owner) { chips.appendChild(chip(owner, "owner")); });
    var now = Date.now() / 1000;
    var next = (item.next || []).filter(function (tick) { return tick > now; })[0];
    var foot = make("div", "rg-foot", null, state(item.last, item.last && item.last.report));
    if (item.last) {
      var age = make("span", "", near(now - item.last.started) + " ago");
      age.title = moment(item.last.started) + ", took " + length(item.last.duration);
      foot.appendChild(age);
    }
    if (next) {
      var ahead = make("span", "n", "next in " + near(next - now));
      ahead.title = moment(next) + (item.schedule ? " (" + item.schedule + ")" : "");
      foot.appendChild(ahead);
    }
    return make("article", "rg-card", null, shot, make("div", "rg-body", null, title, text, chips.firstChild ? chips : null, foot));
  }
  function show() {
    list.textContent = "";
    var names = Object.keys(notebooks).sort().filter(function (name) { return matches(name, notebooks[name]); });
    var groups = {};
    names.forEach(function (name) {
      var group = notebooks[name].group || "";
      (groups[group] = groups[group] || []).push(name);
    });
    var order = Object.keys(groups).sort(function (a, b) { return a && b ? a.localeCompare(b) : a ? -1 : 1; });
    order.forEach(function (group) {
      var grid = make("div", "rg-grid");
      groups[group].forEach(function (name) { grid.appendChild(card(name, notebooks[name])); });
      var head = order.length > 1 || group ? make("h2", "rg-group", group || "Other") : null;
      // Groups of one stand side by side.
      list.appendChild(make("section", groups[group].length === 1 ? "rg-section one" : "rg-section", null, head, grid));
    });
    if (!names.length) {
      list.appendChild(make("p", "rg-none", Object.keys(notebooks).length ? "No notebook matches." : "No notebook has run yet."));
    }
  }
  var controls = {};
  function sync() {
    Object.keys(controls).forEach(function (key) {
      if (controls[key].tagName === "DIV") {
        controls[key].childNodes.forEach(function (button) { button.setAttribute("aria-pressed", String(button.dataset.kind === filter.ending)); });
      } else { controls[key].value = filter[key]; }
    });
  }
  function select(key, label, values) {
    if (!values.length) return null;
    var element = make("select");
    element.setAttribute("aria-label", label);
    element.appendChild(new Option(label, ""));
    values.forEach(function (value) { element.appendChild(new Option(value, value)); });
    element.addEventListener("change", function () { filter[key] = element.value; show(); });
    controls[key] = element;
    return element;
  }
  function distinct(values) {
    return values.filter(function (value, index) { return value && values.indexOf(value) === index; }).sort();
  }
  function all() {
    var page = document.querySelector(".rg-page");
    var names = Object.keys(notebooks);
    var items = names.map(function (name) { return notebooks[name]; });
    page.appendChild(make("h1", "", "Notebooks"));
    var counts = { good: 0, bad: 0, idle: 0, none: 0 };
    items.forEach(function (item) { counts[kind(item.last)]++; });
    var sum = make("div", "rg-sum");
    [["", names.length + (names.length === 1 ? " notebook" : " notebooks")], ["good", counts.good + " succeeded"], ["bad", counts.bad + " failed"], ["idle", counts.idle + " skipped"], ["none", counts.none + " never run"]].forEach(function (pair) {
      if (pair[0] && !counts[pair[0]]) return;
      var button = make("button", "", pair[1]);
      button.type = "button";
      button.dataset.kind = pair[0];
      button.addEventListener("click", function () { filter.ending = filter.ending === pair[0] ? "" : pair[0]; sync(); show(); });
      sum.appendChild(button);
    });
    controls.ending = sum;
    page.appendChild(sum);
    var search = make("input");
    search.type = "search";
    search.placeholder = "Search";
    search.setAttribute("aria-label", "Search notebooks");
    search.addEventListener("input", function () { filter.text = search.value; show(); });
    controls.text = search;
    var flat = function (lists) { return Array.prototype.concat.apply([], lists); };
    page.appendChild(make("div", "rg-tools", null, search,
      select("group", "Any group", distinct(items.map(function (item) { return item.group; }))),
      select("tag", "Any tag", distinct(flat(items.map(tagsOf)))),
      select("owner", "Any owner", distinct(flat(items.map(function (item) { return item.owners || []; }))))));
    list = page.appendChild(make("div", "rg-groups"));
    show();
  }

  // ---- one notebook

  function one() {
    var name = body.dataset.title;
    var item = notebooks[name] || {};
    var page = document.querySelector(".rg-page");
    page.appendChild(make("nav", "rg-crumbs", null, link(up + "index.html", "", "All notebooks")));
    page.appendChild(make("h1", "", name));
    if (item.description) page.appendChild(make("p", "rg-about", item.description));
    var links = make("div", "rg-links");
    var ui = window.researchJobsUi;
    var address = /^\//.test(item.url || "") && ui ? ui + item.url : item.url;
    if (/^https?:/.test(address || "")) links.appendChild(link(address, "", "In Dagster"));
    if (item.schedule) links.appendChild(make("span", "", item.schedule));
    page.appendChild(links);
    runs.sort(function (a, b) { return b.started - a.started; });
    var parts = runs.some(function (run) { return run.partition !== null; });
    var text = "", limit = 200;
    if (runs.length > 12) {
      var search = make("input");
      search.type = "search";
      search.placeholder = parts ? "Search partitions, endings, errors" : "Search endings, errors";
      search.setAttribute("aria-label", "Search runs");
      search.addEventListener("input", function () { text = search.value.toLowerCase(); limit = 200; rows(); });
      page.appendChild(make("div", "rg-tools", null, search));
    }
    var heads = make("tr");
    ["Ending", "Started"].concat(parts ? ["Partition"] : [], ["Took", ""]).forEach(function (head) { heads.appendChild(make("th", head === "Took" ? "r" : "", head)); });
    var rest = make("tbody");
    page.appendChild(make("table", "rg-runs", null, make("thead", "", null, heads), rest));
    var more = make("button", "rg-more", "Show more");
    more.type = "button";
    more.addEventListener("click", function () { limit *= 5; rows(); });
    page.appendChild(more);
    function rows() {
      rest.textContent = "";
      var found = runs.filter(function (run) {
        return !text || [run.partition, words(run), run.headline, moment(run.started)].join(" ").toLowerCase().indexOf(text) >= 0;
      });
      found.slice(0, limit).forEach(function (run) {
        var address = up + run.report;
        var row = make("tr", "", null, make("td", "", null, state(run, address)));
        row.appendChild(make("td", "", null, link(address, "", moment(run.started))));
        if (parts) row.appendChild(make("td", "", run.partition));
        row.appendChild(make("td", "r", length(run.duration)));
        row.appendChild(make("td", "h", run.headline));
        rest.appendChild(row);
      });
      more.hidden = found.length <= limit;
    }
    rows();
  }

  window.addEventListener("DOMContentLoaded", isOne ? one : all);
})();
