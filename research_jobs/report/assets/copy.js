// Copies text to the clipboard, and says so on the button that was pressed.
(function () {
  "use strict";

  window.researchJobsCopy = function (text, button) {
    var label = button.dataset.label = button.dataset.label || button.textContent;
    function done() {
      button.textContent = "Copied";
      setTimeout(function () { button.textContent = label; }, 1500);
    }
    function byHand() {  // without a secure address, or in a frame, there is no clipboard
      var area = document.createElement("textarea");
      area.value = text;
      area.style.position = "fixed";
      document.body.appendChild(area).select();
      document.execCommand("copy");
      area.remove();
      button.focus();
      done();
    }
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, byHand); else byHand();
  };

  // A command with a button beside it.
  document.querySelectorAll(".rj-copy").forEach(function (button) { button.hidden = false; });
  document.addEventListener("click", function (event) {
    if (!event.target.matches(".rj-copy")) return;
    window.researchJobsCopy(event.target.parentNode.querySelector("code").textContent, event.target);
  });
})();
