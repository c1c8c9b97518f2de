// An operator looks at the console in Chromium, goes back to the release before, and reads what an environment wanted to send.
//
// Environment: CONSOLE (the address without a way in), WAY_IN (the one with a ticket), CHROMIUM, SHOTS (folder for screenshots),
// HOME_URL (the site; `/version.php` says `one` in the first release and `two` in the second).

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { Visitor } from './visitor.mjs';

const { CONSOLE: console_, WAY_IN: wayIn, CHROMIUM: executablePath, SHOTS: shots, HOME_URL: home } = process.env;
const flags = '--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync';

mkdirSync(shots, { recursive: true });
const browser = await chromium.launch({ executablePath, headless: true, args: flags.split(' ') });
const faults = [];
async function open(context, url) {
  const page = await context.newPage();
  page.setDefaultTimeout(30_000);
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('console', (line) => line.type() === 'error' && faults.push(line.text()));
  await page.goto(url);
  await page.waitForSelector('#live:text-is("live")');
  return page;
}
const must = (is, what) => { if (!is) throw new Error(what); };
const visitor = await Visitor.at(home);
const version = async () => (await visitor.read(`/version.php?n=${Math.random()}`)).body;

// Without a way in it only shows.
const plain = await browser.newContext({ viewport: { width: 1280, height: 1000 } });
const shown = await open(plain, console_);
must(await shown.isHidden('#changes'), 'changes are offered to anybody');
must((await shown.textContent('#way-in')).includes('pressroom console'), 'how to get in is not said');

// With one, it goes back.
const desk = await browser.newContext({ viewport: { width: 1280, height: 1200 } });
const page = await open(desk, wayIn);
await page.waitForSelector('#changes:not([hidden])');
must(!page.url().includes('ticket'), 'the ticket stays in the address');
must(await version() === 'two', 'the second release serves');
await page.click('#releases summary');
await page.screenshot({ path: join(shots, 'console-releases.png'), fullPage: true });
await page.click('#releases button:text-is("Go back")');
must(await version() === 'two', 'one click was enough');
await page.click('#releases button:text-is("Yes, go back")');
await page.waitForSelector('#steps li.end.done');
must(await version() === 'one', 'the first release serves');
await page.waitForSelector('#releases li:nth-child(2) .verdict:text-is("serving"), #releases li:nth-child(1) .verdict:text-is("serving")');
await page.screenshot({ path: join(shots, 'console-back.png'), fullPage: true });

// And reads mail.
await page.click('#environments summary');
await page.click('#environments button:text-is("Read")');
must((await page.textContent('#environments pre')).includes('Nobody gets this'), 'the letter is not shown');
await page.screenshot({ path: join(shots, 'console-mail.png'), fullPage: true });
await page.setViewportSize({ width: 390, height: 844 });
await page.screenshot({ path: join(shots, 'console-narrow.png'), fullPage: true });

// The tab stays in; another one does not get in with the same ticket.
await page.reload();
await page.waitForSelector('#changes:not([hidden])');
must(faults.length === 0, faults.join('\n'));
const late = await (await browser.newContext()).newPage();
await late.goto(wayIn);
await late.waitForSelector('#way-in:has-text("opens nothing")');
must(await late.isHidden('#changes'), 'a ticket works twice');
await visitor.close();
await browser.close();
