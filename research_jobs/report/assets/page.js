// What a report's page does beyond what HTML does by itself: draw plotly's figures when they come
// into view, give frames the height they ask for, and open all code at once.
(function () {
  "use strict";

  window.researchJobsInflate = function (packed) {
    var bytes = Uint8Array.from(atob(packed), function (letter) { return letter.charCodeAt(0); });
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };

  function draw(box) {
    var holder = box.querySelector('script[type="application/json"]');
    if (!holder || !window.Plotly) return;
    var figure = JSON.parse(holder.textContent);
    var layout = figure.layout || {};
    var fixed = layout.width;
    var place = document.createElement("div");
    place.style.height = layout.height ? layout.height + "px" : "450px";
    box.querySelectorAll("img").forEach(function (image) { image.remove(); });
    box.appendChild(place);
    window.Plotly.newPlot(place, figure.data || [], layout, {
      responsive: !fixed, displaylogo: false, showSendToCloud: false, showEditInChartStudio: false
    }).then(function () {
      if (figure.frames) window.Plotly.addFrames(place, figure.frames);
    });
  }

  var boxes = Array.prototype.slice.call(document.querySelectorAll(".rj-plotly"));
  function drawAll() {
    var watcher = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (entry.isIntersecting) { watcher.unobserve(entry.target); draw(entry.target); }
      });
    }, { rootMargin: "600px" });
    boxes.forEach(function (box) { watcher.observe(box); });
    window.addEventListener("beforeprint", function () {
      boxes.forEach(function (box) { if (!box.querySelector(".plot-container")) draw(box); });
    });
  }
  // A page that is one file has plotly's script packed; its policy names the hash of the script.
  var packed = document.querySelector(".rj-page ~ script[type='application/gzip']");
  if (packed) {
    window.researchJobsInflate(packed.textContent).then(function (code) {
      var script = document.createElement("script");
      script.textContent = code;
      document.head.appendChild(script);
    }).then(drawAll);
  } else drawAll();

  window.addEventListener("message", function (event) {
    var height = event.data && event.data.researchJobsHeight;
    if (typeof height !== "number" || !isFinite(height)) return;
    document.querySelectorAll("iframe.rj-frame").forEach(function (frame) {
      if (frame.contentWindow === event.source) {
        frame.style.height = Math.max(40, Math.min(4000, Math.ceil(height) + 4)) + "px";
      }
    });
  });

  var all = document.querySelector(".rj-all");
  if (all) {
    all.hidden = false;
    all.addEventListener("click", function () {
      var details = document.querySelectorAll("details.rj-code");
      var open = Array.prototype.some.call(details, function (item) { return !item.open; });
      details.forEach(function (item) { item.open = open; });
      all.textContent = open ? "Hide code" : "Show code";
    });
  }

  // The server of the reports says where Dagster's UI is; a file does not know.
  var ui = window.researchJobsUi;
  if (ui) {
    document.querySelectorAll("a[data-ui]").forEach(function (link) {
      link.href = ui + link.dataset.ui;
      link.hidden = false;
    });
  }

  // The runs before and after this one: the list of runs is a script, which calls for each.
  var near = document.querySelector(".rj-near");
  if (near) {
    var runs = [];
    window.researchJobsRun = function (run) { runs.push(run); };
    var script = document.createElement("script");
    script.src = near.dataset.runs;
    script.onload = function () {
      var id = near.dataset.run;
      runs.sort(function (a, b) { return a.started - b.started; });
      var place = runs.findIndex(function (run) { return run.id === id; });
      [["‹ Previous run", runs[place - 1]], ["Next run ›", runs[place + 1]]].forEach(function (pair) {
        if (place < 0 || !pair[1]) return;
        var link = near.appendChild(document.createElement("a"));
        link.href = near.dataset.up + pair[1].report;
        link.textContent = pair[0];
        link.title = [pair[1].partition, pair[1].ending.replace(/_/g, " "), new Date(pair[1].started * 1000).toLocaleString()].filter(Boolean).join(", ");
      });
    };
    document.head.appendChild(script);
  }

  // On a wide screen the contents stand beside the text, and are open. They say where the reader is.
  var toc = document.querySelector(".rj-toc");
  if (toc) {
    toc.open = window.matchMedia("(min-width: 84rem)").matches;
    var links = Array.prototype.slice.call(toc.querySelectorAll("a"));
    var waits = false;
    var mark = function () {
      waits = false;
      var here = links.filter(function (link) {
        var place = document.getElementById(decodeURIComponent(link.hash.slice(1)));
        return place && place.getBoundingClientRect().top < 100;
      }).pop();
      links.forEach(function (link) { if (link === here) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current"); });
    };
    window.addEventListener("scroll", function () {
      if (!waits) window.requestAnimationFrame(mark);
      waits = true;
    }, { passive: true });
  }
})();
