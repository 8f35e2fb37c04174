// Tables of outputs: sort, filter, page, copy, save, load the whole. The page is readable without.
// What is in a table is untrusted: it is read as text and written as text, never as markup.
(function () {
  "use strict";

  var PAGE = 50, FILTERED = 10, SAMPLE = 500, WIDEST = 2000, LARGEST = 200000, PRINTED = 5000;
  var PAPER = 660, SMALLER = 0.85;  // pixels that fit on paper, and what its smaller letters make of one
  var collator = new Intl.Collator(undefined, { numeric: true });

  function list(things) { return Array.prototype.slice.call(things); }
  function make(tag, name, text, inside) {
    var element = document.createElement(tag);
    if (name) element.className = name;
    if (text) element.textContent = text;
    if (inside) element.append.apply(element, inside);
    return element;
  }
  function button(text, pressed) {
    var made = make("button", "", text);
    made.type = "button";
    made.addEventListener("click", pressed);
    return made;
  }
  // As pandas shows a number; what is copied and saved has all its digits.
  function short(text) {
    var value = /^-?\d*\.\d{7,}(?:e[-+]\d+)?$/.test(text) ? Number(text) : NaN;
    return isNaN(value) ? text : Math.abs(value) < 1e-4 ? value.toPrecision(7) : value.toFixed(6);
  }
  function counted(number) { return Number(number).toLocaleString("en"); }
  function textOf(cell) { return cell.textContent.trim().replace(/\s+/g, " "); }

  // ---- what a text means

  var MISSING = /^(?:|nan|nat|none|null|<na>|n\/a|\.\.\.|…|[-–—])$/i;
  var ISO = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?( ?Z|[+-]\d\d:?\d\d)?)?$/;
  var NAMED = /^(?:[A-Za-z]{3,9},? )?(?:\d{1,2} [A-Za-z]{3,9}|[A-Za-z]{3,9} \d{1,2},?) \d{4}(?: \d\d:\d\d(?::\d\d)?)?$/;

  function number(text) {
    if (text.length > 60) return NaN;
    var plain = text.replace(/−/g, "-").replace(/^\((.*)\)$/, "-$1").replace(/^([-+]?)[$€£¥] ?| ?[%$€£¥]$/g, "$1");
    if (/^[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?$/.test(plain)) plain = plain.replace(/,/g, "");
    else if (/^[-+]?\d{1,3}(?:\.\d{3})+,\d+$/.test(plain)) plain = plain.replace(/\./g, "").replace(",", ".");
    else if (/^[-+]?\d{1,3}(?:[ \u00a0\u2009\u202f'_]\d{3})+(?:[.,]\d+)?$/.test(plain)) plain = plain.replace(/[^-+\d.,]/g, "").replace(",", ".");
    if (/^[-+]?inf(?:inity)?$/i.test(plain)) return plain[0] === "-" ? -Infinity : Infinity;
    if (/^[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$/i.test(plain)) return Number(plain);
    var span = /^(-?\d+) days?(?:,? \+?(\d+):(\d+):(\d+(?:\.\d+)?))?$/.exec(text);
    return span ? span[1] * 86400 + (span[2] || 0) * 3600 + (span[3] || 0) * 60 + Number(span[4] || 0) : NaN;
  }
  function date(text, dayFirst) {
    var iso = ISO.exec(text), parts = /^(\d\d?)([./])(\d\d?)\2(\d{4})(?: (\d\d):(\d\d)(?::(\d\d))?)?$/.exec(text);
    if (iso) return Date.parse(text.replace(" ", "T").replace(" ", "") + (text.length > 10 && !iso[1] ? "Z" : ""));
    if (NAMED.test(text)) return Date.parse(text);
    if (!parts) return NaN;
    var first = parts[2] === "." || dayFirst;
    return Date.UTC(parts[4], parts[first ? 3 : 1] - 1, parts[first ? 1 : 3], parts[5] || 0, parts[6] || 0, parts[7] || 0);
  }
  // How to read a column: as numbers or dates where all of it is, else as text.
  function reader(texts) {
    var known = texts.filter(function (text) { return !MISSING.test(text); });
    var dayFirst = known.some(function (text) { return /^(?:1[3-9]|[23]\d)\/\d/.test(text); });
    function day(text) { return date(text, dayFirst); }
    function all(read) { return known.every(function (text) { return !isNaN(read(text)); }); }
    return all(number) ? number : all(day) ? day : null;
  }

  // Rows of cells with each cell at all places that it spans; nothing where it would be too large.
  function grid(rows) {
    var made = rows.map(function () { return []; }), count = 0;
    rows.forEach(function (row, top) {
      var place = 0;
      list(row.cells).forEach(function (cell) {
        while (made[top][place]) place++;
        var high = Math.min(cell.rowSpan || rows.length, rows.length - top), wide = cell.colSpan;
        count += high * wide;
        for (var down = 0; down < high && count < LARGEST; down++) {
          for (var right = 0; right < wide; right++) made[top + down][place + right] = cell;
        }
      });
    });
    return count < LARGEST ? made : null;
  }
  function spans(row) { return list(row.cells).some(function (cell) { return cell.rowSpan !== 1 || cell.colSpan !== 1; }); }

  // ---- a text that leaves the page

  // A spreadsheet runs what begins so as a formula; a number is none.
  function inert(text) { return /^[=+\-@\t\r]/.test(text) && isNaN(number(text)) && !MISSING.test(text) ? "'" + text : text; }
  function quoted(text) { return /[",\r\n]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text; }
  function save(name, text) {
    var link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
    link.download = name + ".csv";
    document.body.appendChild(link).click();
    link.remove();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 10000);
  }

  // ---- one table

  // Its rows are those in the page, or those of `whole`, whose elements are made when they show.
  function equip(table, single, whole) {
    var box = table.closest(".rj-table"), body = table.tBodies[0];
    var head = table.tHead && grid(list(table.tHead.rows));
    if (!head || !head.length || head[0].length > WIDEST || table.tBodies.length !== 1 || !(whole || body.rows.length)) return;
    var fixed = list(body.rows).some(spans), cells = fixed && grid(list(body.rows));
    if (fixed && !cells) return;
    var rows = whole ? whole.rows : list(body.rows).map(function (row, place) {
      return { node: row, texts: (fixed ? cells[place] : list(row.cells)).map(textOf) };
    });
    rows.forEach(function (row, place) { row.place = place; });
    var cut = rows.filter(function (row) { return row.texts.join("").replace(/\.\.\.|…/g, "") === ""; }).length;
    var indexed = whole ? whole.index : list(body.rows[0].cells).filter(function (cell, place, all) {
      return all.slice(0, place + 1).every(function (one) { return one.tagName === "TH"; });
    }).length;

    // The header of a column: its lowest cell with words in it. In a file, all its words.
    var heads = [], labels = [], left = [];
    for (var column = 0; column < head[0].length; column++) {
      var theirs = head.map(function (row) { return row[column]; }).filter(function (cell) { return cell && cell.tagName === "TH"; });
      var own = theirs.filter(function (cell) { return cell.colSpan === 1; }).reverse();
      heads.push(own.filter(textOf)[0] || own[0]);
      labels.push(theirs.map(textOf).filter(function (text, place, all) { return text && all.indexOf(text) === place; }).join(" / "));
      left.push(reader(textsOf(rows.slice(0, SAMPLE), column)) !== number);
    }
    function textsOf(some, column) { return some.map(function (row) { return row.texts[column] || ""; }); }
    function align(cell, column) {
      if (cell && cell.colSpan === 1) cell.classList.add(left[column] ? "rj-l" : "rj-r");
    }
    head.concat(cells || []).forEach(function (row) { row.forEach(align); });
    function node(row) {
      if (row.ready) return row.node;
      row.node = row.node || make("tr", "", "", row.texts.map(function (text, column) {
        return make(column < indexed ? "th" : "td", "", short(text));
      }));
      list(row.node.cells).forEach(align);
      row.ready = true;
      return row.node;
    }
    function put(some) { if (!fixed) body.replaceChildren.apply(body, some.map(node)); }

    // The index stays in view: each of its columns beside the one before it.
    function stick() {
      var places = [], sum = 0;
      list(body.rows.length ? body.rows[0].cells : []).slice(0, indexed).forEach(function (cell) { places.push(sum); sum += cell.offsetWidth; });
      if (sum > box.clientWidth / 2) return;
      head.concat(cells || list(body.rows).map(function (row) { return list(row.cells); })).forEach(function (row) {
        places.forEach(function (place, column) {
          var cell = row[column];
          if (!cell || cell.colSpan > 1) return;
          cell.classList.add("rj-stick");
          cell.style.left = place + "px";
        });
      });
    }

    var shown = rows, first = 0, query = "", sorted = -1, down = false;
    function render() {
      var last = Math.min(shown.length, first + PAGE), paged = !fixed && shown.length > PAGE, all = rows.length - cut;
      put(shown.slice(first, last));
      before.hidden = after.hidden = !paged;
      before.disabled = first === 0;
      after.disabled = last === shown.length;
      var number = shown.length < rows.length ? shown.length : all;
      said.textContent = (paged ? counted(first + 1) + " to " + counted(last) + " of " : "") + counted(number) + (number === 1 ? " row" : " rows") +
        (number < all ? " of " + counted(all) : cut && box.dataset.rows ? " of " + counted(box.dataset.rows) : "");
      stick();
    }
    function choose() {
      var words = query.toLowerCase().split(/\s+/);
      shown = rows.filter(function (row) {
        var text = row.texts.join("\t").toLowerCase();
        return words.every(function (word) { return text.indexOf(word) >= 0; });
      });
      if (sorted >= 0) {
        var read = reader(textsOf(rows, sorted));
        shown = shown.map(function (row) {
          var text = row.texts[sorted] || "";
          return { row: row, text: text, key: MISSING.test(text) ? null : read ? read(text) : 0 };
        }).sort(function (a, b) {  // what is missing comes last, either way
          var missing = (a.key === null) - (b.key === null);
          var order = missing || (a.key < b.key ? -1 : a.key > b.key ? 1 : collator.compare(a.text, b.text));
          return (down && !missing ? -order : order) || a.row.place - b.row.place;
        }).map(function (item) { return item.row; });
      }
      first = 0;
      render();
    }
    function sort(column) {
      if (sorted !== column) { sorted = column; down = false; } else if (!down) down = true; else sorted = -1;
      heads.forEach(function (cell, place) {
        if (cell && place === sorted) cell.setAttribute("aria-sort", down ? "descending" : "ascending"); else if (cell) cell.removeAttribute("aria-sort");
      });
      choose();
    }
    if (!fixed && rows.length > 1) heads.forEach(function (cell, column) {
      if (!cell || cell.querySelector("a, summary, button")) return;
      var inside = button("", function () { sort(column); });
      inside.className = "rj-sort";
      inside.append.apply(inside, list(cell.childNodes));
      if (!textOf(inside)) inside.setAttribute("aria-label", column < indexed ? "Index" : "Column " + (column + 1));
      cell.appendChild(inside);
    });

    var tools = make("div", "rj-tools"), said = make("span", "rj-said");
    var before = button("‹", function () { first -= PAGE; render(); });
    var after = button("›", function () { first += PAGE; render(); });
    before.setAttribute("aria-label", "Rows before");
    after.setAttribute("aria-label", "Rows after");
    said.setAttribute("role", "status");
    if (!fixed && rows.length > FILTERED) {
      var search = tools.appendChild(make("input"));
      search.type = "search";
      search.placeholder = "Filter";
      search.setAttribute("aria-label", "Filter rows");
      search.addEventListener("input", function () { query = search.value.trim(); choose(); });
    }
    function file(separator, written) {
      return [labels].concat(shown.map(function (row) { return row.texts; })).map(function (texts) {
        return texts.map(inert).map(written).join(separator) + "\r\n";
      }).join("");
    }
    tools.append(before, said, after,
      button("Copy", function (event) { window.researchJobsCopy(file("\t", function (text) { return text; }), event.target); }),
      button("Save CSV", function () { save(box.dataset.output || "table", file(",", quoted)); }));
    if (box.dataset.whole && !whole) {
      tools.appendChild(button("Show " + box.dataset.shows, function (event) {
        event.target.disabled = true;
        waiting[box.dataset.whole] = function (received) { tools.remove(); replace(table, single, received); };
        var script = document.head.appendChild(make("script"));
        script.onerror = function () { event.target.textContent = "Not found"; };
        script.src = box.dataset.whole;
      }));
    }
    if (rows.length > FILTERED) (single ? box : table).before(tools); else (single ? box : table).after(tools);
    render();

    // On paper: all rows, and what is wider than the paper in parts, each with the index.
    var parts = [];
    window.addEventListener("beforeprint", function () {
      if (!table.isConnected) return;
      put(shown.slice(0, PRINTED));
      var groups = [head, cells || list(body.rows).map(function (row) { return list(row.cells); })];
      var widths = groups[1].length ? groups[1][0].map(function (cell) { return cell.offsetWidth / cell.colSpan * SMALLER; }) : [];
      function total(from, to) { return widths.slice(from, to).reduce(function (a, b) { return a + b; }, 0); }
      if (total(0) <= PAPER) return;
      for (var start = indexed, stop; start < widths.length; start = stop) {
        for (stop = start + 1; stop < widths.length && total(0, indexed) + total(start, stop + 1) <= PAPER;) stop++;
        var part = table.cloneNode(false);
        part.append(make("thead", "", "", groups[0].map(some(start, stop))), make("tbody", "", "", groups[1].map(some(start, stop))));
        parts.push(part);
      }
      table.before.apply(table, parts);
      table.classList.add("rj-inparts");
    });
    function some(start, stop) {
      return function (row, top, all) {
        var made = make("tr"), last;
        row.forEach(function (cell, column) {
          if (column >= indexed && (column < start || column >= stop)) return;
          if (cell === last) { made.lastChild.colSpan++; return; }
          last = cell;
          var twin = made.appendChild(cell.cloneNode(true));
          twin.colSpan = twin.rowSpan = 1;
          if (top && all[top - 1][column] === cell) twin.textContent = "";
        });
        return made;
      };
    }
    window.addEventListener("afterprint", function () {
      parts.splice(0).forEach(function (part) { part.remove(); });
      table.classList.remove("rj-inparts");
      if (table.isConnected) render();
    });
  }

  // ---- the whole of a table that was shown in part: a script beside the page hands it over

  var waiting = {};
  window.researchJobsTable = function (name, packed) {
    var receive = waiting[name];
    delete waiting[name];
    if (receive) window.researchJobsInflate(packed).then(function (text) { receive(JSON.parse(text)); });
  };
  function replace(table, single, received) {
    var heads = make("tr", "", "", received.labels.map(function (label) { return make("th", "", label); }));
    var made = make("table", "", "", [make("thead", "", "", [heads]), make("tbody")]);
    table.replaceWith(made);
    var rows = (received.columns[0] || []).map(function (_, place) {
      return { texts: received.columns.map(function (column) { return column[place]; }) };
    });
    equip(made, single, { rows: rows, index: received.index });
  }

  document.querySelectorAll(".rj-prose table").forEach(function (table) {
    if (table.closest(".rj-table") || !table.tHead) return;
    var box = make("div", "rj-table");
    box.tabIndex = 0;
    table.replaceWith(box);
    box.appendChild(table);
  });
  document.querySelectorAll(".rj-table").forEach(function (box) {
    var tables = list(box.querySelectorAll("table")).filter(function (table) { return !table.parentNode.closest("table"); });
    tables.forEach(function (table) { equip(table, tables.length === 1); });
  });
})();
