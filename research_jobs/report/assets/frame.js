// In the frame of an output that acts, before anything of the output is there. No policy keeps a
// page from WebRTC, from connecting ahead (link), or from an empty page of its own with everything
// in it once more (iframe). So their constructors go, and nothing can make those elements. What is
// used later is kept here by name, for the output may replace the browser's own functions.
(function (text) {
  "use strict";

  if (self === top) { // opened by itself, without the report's sandbox around it
    document.body.textContent = "Part of a report: open report.html.";
    return;
  }
  var apply = Reflect.apply, indexOf = String.prototype.indexOf, lower = String.prototype.toLowerCase;
  var lastIndexOf = String.prototype.lastIndexOf, slice = String.prototype.slice;
  var define = Object.defineProperty;
  var names = ["iframe", "frame", "frameset", "object", "embed", "applet", "link", "meta", "base", "portal", "fencedframe"];

  function fix(owner, name, value) {
    if (owner) define(owner, name, { value: value, writable: false, configurable: false, enumerable: false });
  }
  function isBanned(name) {
    name = apply(lower, name, []);
    for (var index = 0; index < names.length; index++) if (name === names[index]) return true;
    return false;
  }
  function isHarmless(html) {
    html = apply(lower, html, []);
    for (var index = 0; index < names.length; index++) {
      if (apply(indexOf, html, ["<" + names[index]]) >= 0) return false;
    }
    return true;
  }
  Object.freeze(names);

  ["RTCPeerConnection", "webkitRTCPeerConnection", "mozRTCPeerConnection", "RTCDataChannel",
    "RTCIceTransport", "RTCDtlsTransport", "RTCSctpTransport", "WebTransport", "WebSocketStream",
    "XSLTProcessor", "PresentationRequest", "TCPSocket", "UDPSocket", "DirectSocket"
  ].forEach(function (name) { delete window[name]; fix(window, name, undefined); });
  ["write", "writeln", "open", "execCommand"].forEach(function (name) { fix(Document.prototype, name, undefined); });

  var plain = Document.prototype.createElement, inSpace = Document.prototype.createElementNS;
  fix(Document.prototype, "createElement", function createElement(name, options) {
    name = "" + name;
    if (isBanned(name)) throw new TypeError("A report's frame has no <" + name + ">");
    return apply(plain, this, [name]);
  });
  fix(Document.prototype, "createElementNS", function createElementNS(space, name) {
    name = "" + name;
    if (isBanned(apply(slice, name, [apply(lastIndexOf, name, [":"]) + 1]))) {
      throw new TypeError("A report's frame has no <" + name + ">");
    }
    return apply(inSpace, this, [space, name]);
  });
  if (window.CustomElementRegistry) {
    var register = CustomElementRegistry.prototype.define;
    fix(CustomElementRegistry.prototype, "define", function (name, made) {
      return apply(register, this, [name, made]); // no "extends"
    });
  }

  var raw = window.trustedTypes && trustedTypes.createPolicy("rj", {
    createHTML: function (html) { return html; }
  });
  // Markup that becomes elements passes here, by the page's policy, whichever way it takes.
  var policy = window.trustedTypes && trustedTypes.createPolicy("default", {
    createHTML: function (html) { html = "" + html; return isHarmless(html) ? html : ""; },
    createScript: function (code) { return "" + code; },
    createScriptURL: function (address) { return "" + address; }
  });
  if (policy) fix(TrustedTypePolicyFactory.prototype, "createPolicy", function () { return policy; });

  // The output itself: parsed where nothing acts, rid of what may not be, then put in its place.
  function rid(part) {
    part.querySelectorAll(names.join(",")).forEach(function (element) { element.remove(); });
    part.querySelectorAll("template").forEach(function (template) { rid(template.content); });
  }
  var template = document.createElement("template");
  template.innerHTML = raw ? raw.createHTML(text) : text;
  rid(template.content);
  var scripts = template.content.querySelectorAll("script");
  document.body.appendChild(template.content);
  scripts.forEach(function (script) {
    var copy = document.createElement("script");
    Array.from(script.attributes).forEach(function (item) { copy.setAttribute(item.name, item.value); });
    copy.textContent = script.textContent;
    script.replaceWith(copy);
  });
})
