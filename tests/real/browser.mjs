// What a browser finds on pages: node browser.mjs CHROMIUM URL...
//
// Each page is opened light and dark, at the widths of a telephone and of a desk, and as it prints. One line
// of JSON for each problem: an error in the console, a request to another host, text beside the window,
// or what axe-core calls a violation.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import puppeteer from "puppeteer-core";

const [executablePath, ...urls] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const LOAD_TIMEOUT_MS = 20_000;

const report = (url, view, problem) => console.log(JSON.stringify({ url, view, problem }));

async function inspect(browser, url, { width, scheme, media }) {
  const view = `${width} px, ${scheme}, ${media}`;
  const page = await browser.newPage();
  page.setDefaultTimeout(LOAD_TIMEOUT_MS);
  page.on("console", (line) => line.type() === "error" && report(url, view, line.text()));
  page.on("pageerror", (error) => report(url, view, String(error)));
  page.on("requestfailed", (it) => report(url, view, `cannot load ${it.url()}`));
  page.on("request", (it) => {
    const [to, from] = [new URL(it.url()), new URL(url)];
    if (to.host !== from.host && to.protocol !== "data:") report(url, view, `loads ${to.href}`);
  });
  await page.setViewport({ width, height: 900 });
  await page.emulateMediaType(media);
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  // The events of a page never end, so that the network is never idle.
  const response = await page.goto(url, { waitUntil: "load" });
  if (response && response.status() >= 400) report(url, view, `status ${response.status()}`);
  const beside = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (beside > 0) report(url, view, `${beside} px beside the window`);
  await page.evaluate(axe);
  const { violations } = await page.evaluate("axe.run({ resultTypes: ['violations'] })");
  for (const { id, nodes } of violations) {
    report(url, view, `${id}: ${nodes.slice(0, 3).map((node) => node.html).join(" ")}`);
  }
  await page.close();
}

const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"] });
for (const url of urls) {
  for (const scheme of ["light", "dark"]) {
    for (const width of [400, 1280]) await inspect(browser, url, { width, scheme, media: "screen" });
  }
  await inspect(browser, url, { width: 800, scheme: "light", media: "print" });
}
await browser.close();
