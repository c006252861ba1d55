// Search in a log: only lines with the text stay, and what was found is marked.
for (const log of document.querySelectorAll(".log")) {
  const input = log.querySelector("input"), told = log.querySelector("output");
  const lines = [...log.querySelectorAll("pre > span")].map((node) => ({ node, text: node.textContent }));
  log.querySelector("pre").scrollTop = 1e9; // its end says most
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    let found = 0;
    for (const { node, text } of lines) {
      const at = wanted ? text.toLowerCase().indexOf(wanted) : -1;
      node.hidden = Boolean(wanted) && at < 0;
      node.textContent = text;
      if (at < 0) continue;
      found += 1;
      const mark = document.createElement("mark");
      mark.textContent = text.slice(at, at + wanted.length);
      node.replaceChildren(text.slice(0, at), mark, text.slice(at + wanted.length));
    }
    told.textContent = wanted ? `${found} of ${lines.length} lines` : "";
  });
}
// On paper everything is open.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
