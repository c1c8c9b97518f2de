// An administrator changes code in Chromium: each change is timed from the click until every instance shows it to somebody
// without a name. Prints one line each; ends with an error when one took longer than LIMIT milliseconds.
//
// Environment: HOME_URL, ADMIN_PASSWORD, CHROMIUM (the program), SHOTS (folder for screenshots), FIRST and SECOND (a plugin's
// archives, its versions 1.0 and 2.0), LIMIT. The site offers version 3.0 as an update, and has a theme called Plain.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { Visitor } from './visitor.mjs';

const { HOME_URL: home, ADMIN_PASSWORD: password, CHROMIUM: executablePath, SHOTS: shots, FIRST, SECOND, LIMIT } = process.env;
const flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync';
const slow = [];

mkdirSync(shots, { recursive: true });
const browser = await chromium.launch({ executablePath, headless: true, args: flags.split(' ') });
const desk = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 900 } });
const page = await desk.newPage();
page.setDefaultTimeout(60_000);
page.on('dialog', (dialog) => dialog.accept());
const visitor = await Visitor.at(home);
let asked = 0;

async function shot(name) {
  await page.screenshot({ path: join(shots, `${name}.png`) });
}

/** A page that nobody has asked for before, so that an instance renders it. */
async function fresh(path) {
  asked += 1;
  return (await visitor.read(`${path}${path.includes('?') ? '&' : '?'}nobody=${asked}`)).body;
}

/** From `since` until a fresh page shows `words`; then a dozen more in a row must, which reach every instance. */
async function live(what, path, words, since) {
  while (!(await fresh(path)).includes(words)) {
    if (Date.now() > since + 30_000) throw new Error(`${what}: never live`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const took = Date.now() - since;
  for (let n = 0; n < 12; n += 1) {
    if (!(await fresh(path)).includes(words)) throw new Error(`${what}: an instance does not show it after ${took} ms`);
  }
  report(what, took);
}

function report(what, took) {
  console.log(`${what}: ${took} ms`);
  if (took > Number(LIMIT)) slow.push(`${what}: ${took} ms`);
}

async function upload(archive) {
  await page.goto(`${home}/wp-admin/plugin-install.php?tab=upload`);
  await page.setInputFiles('#pluginzip', archive);
  const since = Date.now();
  await page.click('#install-plugin-submit');
  return since;
}

await page.goto(`${home}/wp-login.php`);
await page.fill('#user_login', 'admin');
await page.fill('#user_pass', password);
await page.click('#wp-submit');
await page.waitForSelector('#wpadminbar');

let since = await upload(FIRST);
await page.getByText('Plugin installed successfully.').first().waitFor();
report('plugin uploaded', Date.now() - since);
await shot('11-plugin-installed');
since = Date.now();
await page.getByRole('link', { name: 'Activate Plugin' }).click();
await live('plugin activated', '/', 'greeter 1.0', since);

await upload(SECOND);
const replace = page.getByRole('link', { name: 'Replace current with uploaded' });
await replace.waitFor();
await shot('12-plugin-replace');
since = Date.now();
await replace.click();
await live('plugin replaced', '/', 'greeter 2.0', since);

await page.goto(`${home}/wp-admin/plugins.php`);
const update = page.locator('tr[data-slug=greeter] a.update-link');
await update.waitFor();
since = Date.now();
await update.click();
await page.locator('tr[data-slug=greeter] .updated-message').waitFor();
report('plugin updated, as its administrator sees it', Date.now() - since);
await live('plugin updated', '/', 'greeter 3.0', since);
await shot('13-plugin-updated');

await page.goto(`${home}/wp-admin/themes.php`);
await page.locator('.theme[data-slug=plain]').hover();
since = Date.now();
await page.locator('.theme[data-slug=plain] .activate').click();
await live('theme switched', '/', 'themes/plain', since);

async function edit(file, text) {
  await page.goto(`${home}/wp-admin/theme-editor.php?file=${file}&theme=plain`);
  const warning = page.locator('.file-editor-warning-dismiss');
  if (await warning.isVisible()) await warning.click();
  await page.waitForSelector('.CodeMirror');
  await page.evaluate((more) => {
    const editor = document.querySelector('.CodeMirror').CodeMirror;
    editor.setValue(editor.getValue() + more);
  }, text);
  const began = Date.now();
  await page.click('#submit');
  return began;
}

since = await edit('style.css', '\n/* edited in a browser */');
await live('style sheet edited', '/wp-content/themes/plain/style.css', 'edited in a browser', since);
since = await edit('functions.php', "\nadd_action('wp_footer', function () { echo 'edited by hand'; });");
await page.getByText('File edited successfully.').first().waitFor();
await live('theme function edited', '/', 'edited by hand', since);
await shot('14-theme-edited');
await edit('functions.php', '\nif (;');
await page.locator('.file-editor-warning, .notice-error').first().waitFor();
await page.getByText('syntax error').first().waitFor();
await shot('15-theme-edit-refused');
if (!(await fresh('/')).includes('edited by hand')) throw new Error('a broken edit reached visitors');

await page.goto(`${home}/wp-admin/plugins.php`);
await page.locator('tr[data-slug=greeter] .deactivate a').click();
await page.locator('tr[data-slug=greeter] .delete a').waitFor();
since = Date.now();
await page.locator('tr[data-slug=greeter] .delete a').click();
await page.getByText('was successfully deleted').first().waitFor();
report('plugin deleted', Date.now() - since);
await shot('16-plugin-deleted');

await browser.close();
await visitor.close();
if (slow.length) {
  console.error(`slower than ${LIMIT} ms: ${slow.join(', ')}`);
  process.exit(1);
}
