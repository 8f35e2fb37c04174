// Two pictures: side by side, one over the other with a slider, or only what differs.
(function () {
  "use strict";

  var WAYS = [["Side by side", ""], ["Slider", "rc-over rc-slide"], ["Difference", "rc-over rc-differ"]];
  var narrow = window.matchMedia("(max-width: 46rem)").matches;

  document.querySelectorAll("[data-pair]").forEach(function (pair) {
    var tools = document.createElement("div");
    tools.className = "rc-tools";
    tools.setAttribute("role", "group");
    tools.setAttribute("aria-label", "How to compare the two pictures");
    var label = document.createElement("label");
    var slider = document.createElement("input");
    slider.type = "range";
    slider.min = 0;
    slider.max = 100;
    slider.value = 50;
    slider.setAttribute("aria-label", "Before on the left, after on the right of");
    slider.addEventListener("input", function () { pair.style.setProperty("--at", slider.value + "%"); });
    var buttons = WAYS.map(function (way, index) {
      var button = document.createElement("button");
      button.type = "button";
      button.textContent = way[0];
      button.addEventListener("click", function () { choose(index); if (index === 1) slider.focus(); });
      tools.appendChild(button);
      return button;
    });
    label.append("Before", slider, "After");
    tools.appendChild(label);
    pair.before(tools);
    function choose(chosen) {
      pair.className = "rc-pair " + WAYS[chosen][1];
      label.hidden = chosen !== 1;
      buttons.forEach(function (button, index) { button.setAttribute("aria-pressed", String(index === chosen)); });
    }
    choose(narrow ? 1 : 0);
  });
})();
