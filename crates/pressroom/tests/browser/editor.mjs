// An editor's afternoon in Chromium. Every change is timed until somebody without a name sees it, on a page that was a hit
// of the page cache before the change. Prints one line each; ends with an error when one took longer than LIMIT milliseconds.
//
// Environment: HOME_URL, ADMIN_PASSWORD, CHROMIUM (the program), SHOTS (folder for screenshots), LIMIT.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { Visitor } from './visitor.mjs';

const { HOME_URL: home, ADMIN_PASSWORD: password, CHROMIUM: executablePath, SHOTS: shots, LIMIT: limit } = process.env;
const flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync';
const LIMIT = Number(limit);
const slow = [];

mkdirSync(shots, { recursive: true });
const browser = await chromium.launch({ executablePath, headless: true, args: flags.split(' ') });
const desk = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 900 } });
const page = await desk.newPage();
page.setDefaultTimeout(30_000);
const visitor = await Visitor.at(home);

async function shot(name, of = page) {
  await of.screenshot({ path: join(shots, `${name}.png`) });
}

/** `change` resolves when the editor is told that it is done; the visitor must see `words` soon after. */
async function seen(what, path, words, change) {
  const before = await visitor.settle(path);
  if (before.body.includes(words)) throw new Error(`${what}: there before the change`);
  const since = (await change()) ?? Date.now();
  const took = await visitor.sees(path, words, since);
  console.log(`${what}: seen after ${took} ms (it was a ${before.cache} before)`);
  if (took > LIMIT) slow.push(`${what}: ${took} ms`);
}

// WordPress greets a new editor with a guide, whenever its scripts get to it.
await page.addLocatorHandler(page.locator('.components-guide'), () => page.keyboard.press('Escape'));

async function logIn() {
  await page.goto(`${home}/wp-login.php`);
  await page.fill('#user_login', 'admin');
  await page.fill('#user_pass', password);
  await page.click('#wp-submit');
  await page.waitForSelector('#wpadminbar');
  await shot('1-dashboard');
}

/** A photograph of sorts, drawn by the browser. */
async function picture() {
  const url = await page.evaluate(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 1200, height: 800 });
    const pen = canvas.getContext('2d');
    for (let i = 0; i < 400; i++) {
      pen.fillStyle = `hsl(${(i * 37) % 360} 70% 55%)`;
      pen.fillRect((i * 97) % 1200, (i * 61) % 800, 150, 110);
    }
    return canvas.toDataURL('image/jpeg', 0.8);
  });
  return Buffer.from(url.split(',')[1], 'base64');
}

/** Opens the block editor with this title in it. */
async function newPost(title) {
  await page.goto(`${home}/wp-admin/post-new.php`);
  await page.waitForSelector('.editor-post-title__input');
  await page.click('.editor-post-title__input');
  await page.keyboard.type(title);
  await page.keyboard.press('Enter');
  await page.keyboard.type(`The words of ${title}.`);
}

/** Presses the button twice, as the editor asks. Resolves when the server's answer is there. */
async function publish(button) {
  const saved = () => page.waitForResponse((answer) => /\/wp\/v2\/posts\/\d+/.test(decodeURIComponent(answer.url())) && answer.request().method() === 'POST');
  await page.click('.editor-post-publish-panel__toggle');
  const [answer] = await Promise.all([
    saved(),
    page.locator('.editor-post-publish-panel').getByRole('button', { name: button, exact: true }).click(),
  ]);
  if (!answer.ok()) throw new Error(`${button}: ${answer.status()} ${await answer.text()}`);
  return { at: Date.now(), post: await answer.json() };
}

let post;
async function publishWithImage() {
  await newPost('A walk by the river');
  await page.keyboard.press('Enter');
  await page.keyboard.type('/image');
  await page.getByRole('option', { name: 'Image', exact: true }).click();
  await page.locator('.block-editor-media-placeholder input[type=file]').setInputFiles({ name: 'river.jpg', mimeType: 'image/jpeg', buffer: await picture() });
  await page.waitForSelector('.wp-block-image img:not([src^="blob:"])');
  await page.waitForFunction(() => !document.querySelector('.wp-block-image .components-spinner'));
  await shot('2-editor');
  await seen('published post', '/', 'A walk by the river', async () => {
    const done = await publish('Publish');
    post = done.post;
    return done.at;
  });
  await shot('3-published');
  const reader = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
  await reader.goto(post.link);
  const width = await reader.locator('.wp-block-image img').evaluate((image) => image.decode().then(() => image.naturalWidth));
  if (!(width > 0)) throw new Error('the uploaded image is not shown');
  await shot('4-visitor-reads-the-post', reader);
  console.log(`uploaded image: ${width} px wide for the visitor`);
  await reader.close();
}

let due;
async function schedule() {
  await newPost('News of tomorrow');
  // The editor says "Publish" for what is less than a minute away.
  due = Math.ceil(Date.now() / 1000) * 1000 + 70_000;
  await page.evaluate((date) => wp.data.dispatch('core/editor').editPost({ date }), new Date(due).toISOString().slice(0, 19));
  await publish('Schedule');
  await shot('5-scheduled');
}

async function scheduledPostAppears() {
  await pause(due - 2000 - Date.now());
  await seen('scheduled post', '/', 'News of tomorrow', async () => {
    await pause(due - Date.now());
    return due;
  });
}

async function pause(milliseconds) {
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, milliseconds)));
}

async function approveComment() {
  const context = await browser.newContext({ ignoreHTTPSErrors: true });
  const stranger = await context.newPage();
  await stranger.goto(post.link);
  await stranger.fill('#comment', 'What a lovely river!');
  await stranger.fill('#author', 'Ida');
  await stranger.fill('#email', 'ida@example.org');
  await stranger.click('#submit');
  await stranger.waitForLoadState();
  await shot('6-comment-awaits-moderation', stranger);
  await context.close();
  await page.goto(`${home}/wp-admin/edit-comments.php?comment_status=moderated`);
  const row = page.locator('#the-comment-list tr', { hasText: 'What a lovely river!' });
  await row.hover();
  await shot('7-moderation');
  await seen('approved comment', post.link, 'What a lovely river!', async () => {
    await Promise.all([
      page.waitForResponse((answer) => answer.url().includes('admin-ajax.php') && (answer.request().postData() ?? '').includes('dim-comment')),
      row.locator('.approve a').click(),
    ]);
  });
}

async function switchTheme() {
  await page.goto(`${home}/wp-admin/themes.php`);
  const card = page.locator('.theme[data-slug="plain"]');
  await card.hover();
  await shot('8-themes');
  await seen('switched theme', '/', 'id="plain-theme"', async () => {
    await Promise.all([page.waitForURL(/activated=true/), card.locator('.activate').click()]);
  });
}

/** Whichever of the two buttons the page shows. */
const saveMenu = () => page.locator('.menu-save:visible').first();

async function editMenu() {
  await page.goto(`${home}/wp-admin/nav-menus.php?action=edit&menu=0`);
  await page.fill('#menu-name', 'By the water');
  await page.locator('input[name="menu-locations[main]"]').check();
  await Promise.all([page.waitForNavigation(), saveMenu().click()]);
  await page.waitForSelector('#add-custom-links');
  const link = page.locator('#add-custom-links');
  if (!(await page.locator('#custom-menu-item-url').isVisible())) await link.locator('.accordion-section-title').click();
  await page.fill('#custom-menu-item-url', 'https://example.org/harbour');
  await page.fill('#custom-menu-item-name', 'The harbour');
  await page.click('#submit-customlinkdiv');
  await page.waitForSelector('#menu-to-edit .menu-item');
  await shot('9-menu');
  await seen('edited menu', '/', 'The harbour', async () => {
    await Promise.all([page.waitForSelector('#message.updated, .notice-success'), saveMenu().click()]);
  });
  const reader = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
  await reader.goto(`${home}/`);
  await shot('10-visitor-at-the-end', reader);
}

try {
  for (const step of [logIn, publishWithImage, schedule, approveComment, switchTheme, editMenu, scheduledPostAppears]) {
    await step().catch(async (error) => {
      await shot(`failed-${step.name}`).catch(() => {});
      error.message = `${step.name}: ${error.message}`;
      throw error;
    });
  }
} finally {
  await visitor.close();
  await browser.close();
}
if (slow.length > 0) throw new Error(`slower than ${LIMIT} ms: ${slow.join('; ')}`);
