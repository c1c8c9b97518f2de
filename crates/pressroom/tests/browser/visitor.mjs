// A visitor without a name: asks for pages over HTTPS and looks at what the page cache did.

import { request } from 'playwright-core';

export class Visitor {
  static async at(home) {
    const visitor = new Visitor();
    visitor.home = home;
    visitor.context = await request.newContext({ ignoreHTTPSErrors: true });
    return visitor;
  }

  /** Body and `x-cache` of a page. */
  async read(path) {
    const answer = await this.context.get(path.startsWith('http') ? path : this.home + path);
    return { status: answer.status(), cache: answer.headers()['x-cache'], body: await answer.text() };
  }

  /** Reads until the page is a hit: from then on only a purge can change it. */
  async settle(path) {
    const end = Date.now() + 10_000;
    for (;;) {
      const page = await this.read(path);
      if (page.cache === 'hit') return page;
      if (Date.now() > end) throw new Error(`${path} is \`${page.cache}\` for ever`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Reads until `words` are in the page; answers after how many milliseconds since `since` that was. */
  async sees(path, words, since, patience = 10_000) {
    for (;;) {
      const page = await this.read(path);
      if (page.body.includes(words)) return Date.now() - since;
      if (Date.now() > since + patience) throw new Error(`${path} never shows \`${words}\` (${page.cache})`);
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }

  async close() {
    await this.context.dispose();
  }
}
