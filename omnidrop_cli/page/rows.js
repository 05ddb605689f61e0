(function () {
  var data = JSON.parse(document.getElementById("report").textContent).page;
  var form = document.getElementById("choose");
  var body = document.getElementById("rows-body");
  var count = document.getElementById("count");
  var back = document.getElementById("back");
  var next = document.getElementById("next");
  var names = {};
  data.columns.forEach(function (name, i) { names[name] = i; });
  var PAGE = 50, at = 0, found = data.rows;

  function of(row, name) { return row[names[name]]; }

  function number(name) {
    var text = form.elements[name].value.trim().replace(",", ".");
    var value = text === "" ? null : Number(text);
    return Number.isFinite(value) ? value : null;
  }

  function choose() {
    var words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    var status = form.elements.status.value, group = form.elements.group.value;
    var cause = form.elements.cause.value, slower = number("slower"), surer = number("surer");
    found = data.rows.filter(function (row) {
      if (status !== "" && of(row, "status") !== status) return false;
      if (group !== "" && String(of(row, "group")) !== group) return false;
      if (cause !== "" && String(of(row, "cause")) !== cause) return false;
      var seconds = of(row, "seconds"), sure = of(row, "probability");
      if (slower !== null && !(seconds !== null && seconds >= slower)) return false;
      if (surer !== null && !(sure !== null && 100 * sure <= surer)) return false;
      if (!words.length) return true;
      var text = [of(row, "id"), of(row, "clip"), of(row, "question"), of(row, "answer"),
        of(row, "error"), of(row, "category")].join("\n").toLowerCase();
      return words.every(function (word) { return text.includes(word); });
    });
    var order = form.elements.sort.value, falling = order.charAt(0) === "-";
    var name = order.replace("-", "");
    if (name) {
      found = found.slice().sort(function (one, other) {
        var a = of(one, name), b = of(other, name);
        if (a === null || a === "") return b === null || b === "" ? 0 : 1;
        if (b === null || b === "") return -1;
        var less = typeof a === "string" ? a.localeCompare(b) : a - b;
        return falling ? -less : less;
      });
    }
    at = 0;
    show();
  }

  function element(kind, text, style) {
    var made = document.createElement(kind);
    if (text !== undefined && text !== null) made.textContent = text;
    if (style) made.className = style;
    return made;
  }

  function cell(row, label, text, style) {
    var made = element("td", text, style);
    made.dataset.label = label;
    row.appendChild(made);
    return made;
  }

  function strip(levels) {
    var space = "http://www.w3.org/2000/svg";
    var made = document.createElementNS(space, "svg");
    made.setAttribute("viewBox", "0 0 " + levels.length + " 100");
    made.setAttribute("preserveAspectRatio", "none");
    made.setAttribute("class", "strip-chart");
    made.setAttribute("aria-hidden", "true");
    var drawn = "";
    levels.forEach(function (level, i) {
      if (level) drawn += "M" + i + " " + (100 - level) + "h1v" + level + "h-1z";
    });
    var path = document.createElementNS(space, "path");
    path.setAttribute("class", "video");
    path.setAttribute("d", drawn);
    made.appendChild(path);
    return made;
  }

  function share(value, digits) {
    return value === null ? "–" : (100 * value).toFixed(digits) + " %";
  }

  function time(value) {
    if (value === null) return "–";
    if (value < 1) return Math.round(1000 * value) + " ms";
    return value < 120 ? value.toFixed(value < 10 ? 2 : 1) + " s" : Math.round(value / 60) + " min";
  }

  function line(row) {
    var made = element("tr");
    var head = element("th");
    head.scope = "row";
    var name = of(row, "clip").replace(/\\/g, "/").split("/").pop() || "–";
    var link = of(row, "page");
    var shown = element(link ? "a" : "span", name);
    if (link) shown.href = link;
    shown.title = of(row, "clip");
    head.appendChild(shown);
    made.appendChild(head);
    cell(made, "question", of(row, "question")).dir = "auto";
    var answer = cell(made, "answer", undefined, "said");
    answer.dir = "auto";
    if (of(row, "status") === "answered") {
      answer.appendChild(element("strong", of(row, "answer").trim() || "no words"));
    } else {
      answer.appendChild(element("span", of(row, "status") + ": ", "muted"));
      answer.appendChild(element("span", of(row, "error"), "failed"));
    }
    var expected = of(row, "expected");
    if (expected && of(row, "right") !== 1) {
      answer.appendChild(element("small", " expected " + expected));
    }
    if (data.groups.length > 1) cell(made, "settings", of(row, "group"), "number");
    cell(made, "sure", share(of(row, "probability"), 0), "number");
    var kept = cell(made, "kept", share(of(row, "kept"), 1), "number");
    if (of(row, "along")) kept.appendChild(strip(of(row, "along")));
    cell(made, "time", time(of(row, "seconds")), "number");
    return made;
  }

  function show() {
    var part = found.slice(at, at + PAGE);
    body.replaceChildren.apply(body, part.map(line));
    var told = found.length === 1 ? "1 row" : found.length.toLocaleString("en") + " rows";
    if (found.length > PAGE) {
      told += ", " + (at + 1).toLocaleString("en") + " to " +
        (at + part.length).toLocaleString("en") + " shown";
    }
    count.textContent = told;
    back.disabled = at === 0;
    next.disabled = at + PAGE >= found.length;
  }

  function turn(by) {
    at += by * PAGE;
    show();
    document.getElementById("rows").scrollIntoView();
  }

  form.hidden = false;
  document.getElementById("turn").hidden = false;
  form.addEventListener("input", choose);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  form.addEventListener("reset", function () { setTimeout(choose, 0); });
  back.addEventListener("click", function () { turn(-1); });
  next.addEventListener("click", function () { turn(1); });
  document.addEventListener("click", function (event) {
    var link = event.target.closest("a[data-choose]");
    if (!link) return;
    form.reset();
    form.elements[link.dataset.choose].value = link.dataset.value;
    choose();
  });
  choose();
})();
