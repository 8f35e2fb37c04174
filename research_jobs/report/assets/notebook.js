// The runs of one notebook, which come as calls from runs.js.
(function () {
  "use strict";

  var body = document.body;
  var up = body.dataset.up;
  var STATES = JSON.parse(body.dataset.states);
  var runs = [];
  window.researchJobsRun = function (run) { runs.push(run); };

  // A page that is older than a line of its data may lack a state.
  function words(run) { return (STATES[run.ending] || [run.ending])[0]; }
  function kind(run) { return (STATES[run.ending] || ["", "bad"])[1]; }

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
  function length(seconds) {
    if (seconds < 0.0995) return Math.round(seconds * 1000) + " ms";
    if (seconds < 60) return seconds.toFixed(seconds < 10 ? 2 : 1) + " s";
    if (seconds < 3600) return Math.floor(seconds / 60) + " min " + Math.round(seconds % 60) + " s";
    return Math.floor(seconds / 3600) + " h " + Math.round(seconds % 3600 / 60) + " min";
  }
  function moment(unix) {
    return new Date(unix * 1000).toLocaleString(undefined, { weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
  }

  function start() {
    var page = document.querySelector(".rg-page");
    var asset = document.querySelector("[data-asset]");
    var ui = window.researchJobsUi, path = asset.dataset.asset;
    var address = /^\//.test(path) && ui ? ui + path : path;
    if (/^https?:/.test(address)) asset.appendChild(link(address, "", "In Dagster"));
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
    ["Ending", "Started"].concat(parts ? ["Partition"] : [], ["Took", "", ""]).forEach(function (head) { heads.appendChild(make("th", head === "Took" ? "r" : "", head)); });
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
        var row = make("tr", "", null, make("td", "", null, link(address, "rg-state " + kind(run), words(run))));
        row.appendChild(make("td", "", null, link(address, "", moment(run.started))));
        if (parts) row.appendChild(make("td", "", run.partition));
        row.appendChild(make("td", "r", length(run.duration)));
        var changes = run.changes ? link(up + run.report.replace(/report\.html.*$/, "changes.html"), "", "Changes") : null;
        row.appendChild(make("td", "", null, changes));
        row.appendChild(make("td", "h", run.headline));
        rest.appendChild(row);
      });
      more.hidden = found.length <= limit;
    }
    rows();
  }

  window.addEventListener("DOMContentLoaded", start);
})();
