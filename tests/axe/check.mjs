// Serious and critical findings of axe-core on a whole page, everything unfolded, and what of it has to be scrolled
// sideways on a phone: node check.mjs CHROMIUM PAGE...
// Prints a JSON list; each finding names its page, width, theme, rule, and the first elements that it is about.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(import.meta.url);
const { chromium } = require("playwright-core");
const rules = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [executablePath, ...pages] = process.argv.slice(2);

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const found = [];
for (const path of pages) {
  // The page's policy lets no script run, so that of the check needs leave.
  const context = await browser.newContext({ bypassCSP: true });
  const page = await context.newPage();
  await page.goto(pathToFileURL(path).href);
  await page.evaluate(rules);
  await page.evaluate(() => document.querySelectorAll("details").forEach((part) => (part.open = true)));
  // Records and the links to them are there by the thousand, all alike: the first five of each list stand for them.
  const alike = "#records tbody:nth-of-type(n+6), a[href^='#record-']:nth-of-type(n+6), .row:nth-of-type(n+6)";
  await page.evaluate((alike) => document.querySelectorAll(alike).forEach((part) => part.remove()), alike);
  for (const width of [1280, 390]) {
    for (const colorScheme of ["light", "dark"]) {
      await page.setViewportSize({ width, height: 800 });
      await page.emulateMedia({ colorScheme });
      const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
      for (const { id, impact, nodes } of violations) {
        if (impact === "serious" || impact === "critical") {
          const where = nodes.slice(0, 3).map((node) => node.target.join(" "));
          found.push({ path, width, theme: colorScheme, rule: id, count: nodes.length, where });
        }
      }
    }
  }
  // At the last width, a phone's: figures and tables fit.
  const wide = await page.evaluate(() =>
    [...document.querySelectorAll(".scroll")].filter((part) => part.scrollWidth > part.clientWidth + 1)
      .map((part) => part.innerText.trim().slice(0, 60) || part.firstElementChild.alt.slice(0, 60)));
  if (wide.length) found.push({ path, width: 390, theme: "both", rule: "scrolls-sideways", count: wide.length, where: wide });
  await context.close();
}
await browser.close();
console.log(JSON.stringify(found, null, 1));
